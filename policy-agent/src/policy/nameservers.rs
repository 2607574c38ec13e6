//! The DNS servers that a sandbox may reach: its own, or the operator's default.

use std::{
    net::{IpAddr, Ipv4Addr},
    slice,
};

use super::{ValidationError, cidr, entry_list};

/// Entries that `dnsServers` may have.
pub const MAX_NAMESERVERS: usize = 10;

const DNS_SERVERS_FIELD: &str = "network.dnsServers";

/// Why a DNS server has no name here.
const ADDRESS_NEEDED_HINT: &str =
    "write the DNS server's IP address: without a DNS server the sandbox can resolve no name";

/// What the operator sets for all sandboxes, besides the [`Floor`](super::Floor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyDefaults {
    /// The DNS server of a sandbox that has domain rules and no `dnsServers`.
    pub nameserver: IpAddr,
}

impl Default for PolicyDefaults {
    fn default() -> Self {
        Self { nameserver: Ipv4Addr::new(8, 8, 8, 8).into() }
    }
}

/// The DNS servers of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum SandboxNameservers {
    /// The operator's.
    OperatorDefault(IpAddr),
    /// As in `dnsServers`. Also empty, where nothing needs a name.
    Listed(Vec<IpAddr>),
}

impl SandboxNameservers {
    /// Checks `dnsServers`. Only domain rules need names, so only they open a DNS server.
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

    /// Their addresses.
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
