//! The process's file descriptors, and how many of them each part of the agent may hold. What
//! strangers open, visitors of public URLs and sandboxes, never takes those of the control plane:
//! the API, changes of policies, files, DNS.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};

/// Descriptors of the process, divided among its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// Connections of visitors to the gateway.
    pub visitors: usize,
    /// Connections of the gateway into sandboxes, used and idle.
    pub services: usize,
    /// Both sides of connections through the egress proxy.
    pub egress: usize,
}

/// One in so many is the control plane's.
const RESERVE: u64 = 10;
/// One in so many is for visitors of the gateway, and one for its connections into sandboxes.
const QUARTER: u64 = 4;

impl Descriptors {
    /// Of this process. Where no gateway runs, its part is the egress proxy's.
    ///
    /// # Errors
    /// The limit cannot be read.
    pub fn of_process(with_gateway: bool) -> Result<Self> {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).context("cannot read RLIMIT_NOFILE")?;
        Ok(Self::of(limit, with_gateway))
    }

    fn of(limit: u64, with_gateway: bool) -> Self {
        let quarter = if with_gateway { limit / QUARTER } else { 0 };
        let egress = limit - limit / RESERVE - 2 * quarter;
        let count = |part: u64| usize::try_from(part).unwrap_or(usize::MAX);
        Self { visitors: count(quarter), services: count(quarter), egress: count(egress) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_leave_the_control_plane_its_own() {
        for limit in [1024, 4096, 8192, 1 << 20, u64::MAX >> 1] {
            for with_gateway in [false, true] {
                let parts = Descriptors::of(limit, with_gateway);
                let Descriptors { visitors, services, egress } = parts;
                let all = (visitors + services + egress) as u64;
                assert!(all + limit / 11 <= limit, "{limit}: {parts:?}");
                assert!(all >= limit / 100 * 85, "{limit}: {parts:?}");
            }
        }
        let parts = Descriptors::of(4096, true);
        let expected = Descriptors { visitors: 1024, services: 1024, egress: 1639 };
        assert_eq!(parts, expected);
    }
}
