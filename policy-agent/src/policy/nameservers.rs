//! The DNS servers that a sandbox may reach: its own, or the operator's default.

use std::{
    net::{IpAddr, Ipv4Addr},
    slice,
};

use super::{Invalid, cidr, list};

/// Entries that `dnsServers` may have.
pub const MAX_NAMESERVERS: usize = 10;

const FIELD: &str = "network.dnsServers";

/// Why a DNS server has no name here.
const NO_NAMES: &str =
    "write the DNS server's IP address: without a DNS server the sandbox can resolve no name";

/// What the operator sets for all sandboxes, besides the [`Floor`](super::Floor).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    /// The DNS server of a sandbox that has domain rules and no `dnsServers`.
    pub nameserver: IpAddr,
}

impl Default for Defaults {
    fn default() -> Self {
        Self { nameserver: Ipv4Addr::new(8, 8, 8, 8).into() }
    }
}

/// The DNS servers of one sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Nameservers {
    /// The operator's.
    Default(IpAddr),
    /// As in `dnsServers`. Also empty, where nothing needs a name.
    Given(Vec<IpAddr>),
}

impl Nameservers {
    /// Checks `dnsServers`. Only domain rules need names, so only they open a DNS server.
    pub(super) fn new(
        servers: Option<&[String]>,
        has_names: bool,
        defaults: &Defaults,
    ) -> Result<Self, Invalid> {
        let Some(servers) = servers else {
            return Ok(if has_names {
                Self::Default(defaults.nameserver)
            } else {
                Self::Given(Vec::new())
            });
        };
        if !servers.is_empty() && !has_names {
            let problem = "allowed only when allowOut holds a domain; to reach a DNS server \
                           otherwise, add its address to allowOut";
            return Err(Invalid::field(FIELD, problem));
        }
        list::limit(FIELD, servers.len(), MAX_NAMESERVERS)?;
        list::read(FIELD, servers, |server| cidr::parse_address(server, NO_NAMES)).map(Self::Given)
    }

    /// Their addresses.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        match self {
            Self::Default(address) => slice::from_ref(address),
            Self::Given(addresses) => addresses,
        }
    }

    /// Whether this is the operator's default.
    pub(super) const fn is_default(&self) -> bool {
        matches!(self, Self::Default(_))
    }
}
