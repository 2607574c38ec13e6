//! The DNS servers that a sandbox may reach: its own, or the operator's default.

use std::{
    net::{IpAddr, Ipv4Addr},
    slice,
};

use super::{RuleLimits, ValidationError, cidr, entry_list};

/// Maximum number of entries in `dnsServers`.
const MAX_NAMESERVERS: usize = 10;

const DNS_SERVERS_FIELD: &str = "network.dnsServers";

/// Explains why a DNS server cannot be given by name.
const ADDRESS_NEEDED_HINT: &str =
    "write the DNS server's IP address: without a DNS server the sandbox can resolve no name";

/// The operator's settings for all sandboxes, besides the [`Floor`](super::Floor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyDefaults {
    /// The DNS server of a sandbox with domain rules and without `dnsServers`.
    pub nameserver: IpAddr,
    /// How large `network.rules` may be.
    pub rule_limits: RuleLimits,
}

impl PolicyDefaults {
    /// The same without limits, for configurations that were accepted before.
    #[must_use]
    pub const fn without_limits(self) -> Self {
        Self { rule_limits: RuleLimits::NONE, ..self }
    }
}

impl Default for PolicyDefaults {
    fn default() -> Self {
        Self { nameserver: Ipv4Addr::new(8, 8, 8, 8).into(), rule_limits: RuleLimits::default() }
    }
}

/// The DNS servers of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SandboxNameservers {
    /// The operator's default.
    OperatorDefault(IpAddr),
    /// Those of `dnsServers`. Also used, with an empty list, if no rule needs names.
    Listed(Vec<IpAddr>),
}

impl SandboxNameservers {
    /// Validates `dnsServers`. Only domain rules need name resolution, so only they allow a DNS
    /// server.
    pub(super) fn new(
        servers: Option<&[String]>,
        has_names: bool,
        defaults: &PolicyDefaults,
    ) -> Result<Self, ValidationError> {
        let Some(servers) = servers else {
            return Ok(if has_names {
                Self::OperatorDefault(defaults.nameserver)
            } else {
                Self::Listed(Vec::new())
            });
        };
        if !servers.is_empty() && !has_names {
            let problem = "allowed only when allowOut holds a domain; to reach a DNS server \
                           otherwise, add its address to allowOut";
            return Err(ValidationError::about_field(DNS_SERVERS_FIELD, problem));
        }
        entry_list::check_length(DNS_SERVERS_FIELD, servers.len(), MAX_NAMESERVERS)?;
        entry_list::parse_entries(DNS_SERVERS_FIELD, servers, |server| {
            cidr::parse_single_address(server, ADDRESS_NEEDED_HINT)
        })
        .map(Self::Listed)
    }

    /// The servers' addresses.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::OperatorDefault(address) => slice::from_ref(address),
            Self::Listed(addresses) => addresses,
        }
    }

    /// Whether this is the operator's default.
    pub(super) const fn is_default(&self) -> bool {
        matches!(self, Self::OperatorDefault(_))
    }
}
