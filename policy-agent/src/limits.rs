//! The process's file descriptors and how many of them each part of the agent may hold. Connections
//! that outsiders open (clients of public URLs, and sandboxes) never use up the descriptors of the
//! control plane: the API, policy changes, files, DNS.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};

/// The file descriptors of the process, divided among its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorBudget {
    /// Connections of clients to the gateway.
    pub gateway_clients: usize,
    /// Connections of the gateway to sandboxes, active and idle.
    pub gateway_backends: usize,
    /// Both sides of connections through the egress proxy.
    pub proxy_connections: usize,
}

/// The control plane gets this fraction (1/n) of the descriptors.
const RESERVE_DIVISOR: u64 = 10;
/// The gateway's clients and its connections to sandboxes each get this fraction (1/n).
const GATEWAY_DIVISOR: u64 = 4;

impl DescriptorBudget {
    /// The budget of this process. Without a gateway, the egress proxy gets the gateway's part.
    ///
    /// # Errors
    /// The limit cannot be read.
    pub fn for_process(with_gateway: bool) -> Result<Self> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
        Ok(Self::divide(limit, with_gateway))
    }

    fn divide(limit: u64, with_gateway: bool) -> Self {
        let quarter = if with_gateway { limit / GATEWAY_DIVISOR } else { 0 };
        let proxy_connections = limit - limit / RESERVE_DIVISOR - 2 * quarter;
        let count = |part: u64| usize::try_from(part).unwrap_or(usize::MAX);
        Self {
            gateway_clients: count(quarter),
            gateway_backends: count(quarter),
            proxy_connections: count(proxy_connections),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_leave_the_control_plane_its_own() {
        for limit in [1024, 4096, 8192, 1 << 20, u64::MAX >> 1] {
            for with_gateway in [false, true] {
                let parts = DescriptorBudget::divide(limit, with_gateway);
                let DescriptorBudget { gateway_clients, gateway_backends, proxy_connections } =
                    parts;
                let all = (gateway_clients + gateway_backends + proxy_connections) as u64;
                assert!(all + limit / 11 <= limit, "{limit}: {parts:?}");
                assert!(all >= limit / 100 * 85, "{limit}: {parts:?}");
            }
        }
        let parts = DescriptorBudget::divide(4096, true);
        let expected = DescriptorBudget {
            gateway_clients: 1024,
            gateway_backends: 1024,
            proxy_connections: 1639,
        };
        assert_eq!(parts, expected);
    }
}
