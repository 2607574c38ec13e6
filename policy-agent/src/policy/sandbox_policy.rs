//! The validated meaning of one sandbox's configuration.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use ipnet::IpNet;

use super::{
    ALL_TRAFFIC, DomainPattern, Floor, HeaderRules, HostMask, MAX_LIST_ENTRIES, NetworkConfig,
    PolicyDefaults, PolicyMode, Socks5Proxy, ValidationError, cidr, entry_hints, entry_list,
    nameservers::SandboxNameservers,
};

/// An entry of `allowOut`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum AllowOutEntry {
    Network(IpNet),
    Domain(DomainPattern),
}

impl fmt::Display for AllowOutEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(net) => net.fmt(f),
            Self::Domain(pattern) => pattern.fmt(f),
        }
    }
}

/// The destinations that one sandbox may reach, and how its traffic is handled. Every value of this
/// type is valid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    allow_out: Vec<AllowOutEntry>,
    has_domains: bool,
    deny_out: Vec<IpNet>,
    allows_internet: bool,
    nameservers: SandboxNameservers,
    egress_proxy: Option<Socks5Proxy>,
    header_rules: HeaderRules,
    allow_public_traffic: bool,
    allow_public_from: Option<Vec<IpNet>>,
    mask_request_host: Option<HostMask>,
    https_ports: BTreeSet<u16>,
    mode: PolicyMode,
}

impl Policy {
    /// Validates a configuration. `allow_internet_access` is the field next to `network`.
    ///
    /// # Errors
    /// A field is invalid. The error contains the first invalid field and entry.
    pub fn new(
        network: &NetworkConfig,
        allow_internet_access: Option<bool>,
        defaults: &PolicyDefaults,
        floor: &Floor,
    ) -> Result<Self, ValidationError> {
        let allows_internet = resolve_internet_access(allow_internet_access, network)?;
        let lists = (network.allow_out.as_deref(), network.deny_out.as_deref());
        let allow_out = entry_list::parse_entries(
            "network.allowOut",
            lists.0.unwrap_or_default(),
            parse_allow_out_entry,
        )?;
        let deny_out = entry_list::parse_entries(
            "network.denyOut",
            lists.1.unwrap_or_default(),
            parse_deny_out_entry,
        )?;
        let denies_all = !allows_internet || deny_out.iter().any(cidr::is_all_traffic);
        let has_names = check_domains_need_deny_all(&allow_out, denies_all)?;
        let servers = network.dns_servers.as_deref();
        let proxy = network.egress_proxy.as_ref();
        Ok(Self {
            allow_out,
            has_domains: has_names,
            deny_out,
            allows_internet,
            nameservers: SandboxNameservers::new(servers, has_names, defaults)?,
            egress_proxy: proxy.map(|proxy| Socks5Proxy::new(proxy, floor)).transpose()?,
            header_rules: parse_rules(network, defaults)?,
            allow_public_traffic: network.allow_public_traffic.unwrap_or(true),
            allow_public_from: parse_client_networks(network.allow_public_from.as_deref())?,
            mask_request_host: network
                .mask_request_host
                .as_deref()
                .map(HostMask::new)
                .transpose()?,
            https_ports: parse_https_ports(network.https_ports.as_deref())?,
            mode: PolicyMode::Enforce,
        })
    }

    /// The same policy in this mode.
    #[must_use]
    pub fn with_mode(self, mode: PolicyMode) -> Self {
        Self { mode, ..self }
    }

    /// Whether it is enforced. The operator decides that, not the configuration of the network.
    #[must_use]
    pub const fn mode(&self) -> PolicyMode {
        self.mode
    }

    /// Whether what it denies passes.
    #[must_use]
    pub const fn is_observed(&self) -> bool {
        !self.mode.is_enforce()
    }

    /// The entries of `allowOut`, in the user's order.
    pub(super) fn allow_out(&self) -> &[AllowOutEntry] {
        &self.allow_out
    }

    /// The entries of `denyOut`, in the user's order.
    pub(super) fn deny_out(&self) -> &[IpNet] {
        &self.deny_out
    }

    /// `allowInternetAccess`.
    #[must_use]
    pub const fn allows_internet(&self) -> bool {
        self.allows_internet
    }

    /// The domain entries of `allowOut`, with their indexes in that list.
    pub fn domains(&self) -> impl Iterator<Item = (usize, &DomainPattern)> {
        self.allow_out.iter().enumerate().filter_map(|(index, target)| match target {
            AllowOutEntry::Domain(pattern) => Some((index, pattern)),
            AllowOutEntry::Network(_) => None,
        })
    }

    /// The addresses and networks of `allowOut`.
    pub fn allowed_networks(&self) -> impl Iterator<Item = &IpNet> {
        self.allow_out.iter().filter_map(|target| match target {
            AllowOutEntry::Domain(_) => None,
            AllowOutEntry::Network(network) => Some(network),
        })
    }

    /// Whether the sandbox has domain rules. TCP to ports 80 and 443 is then judged by name.
    #[must_use]
    pub const fn has_domains(&self) -> bool {
        self.has_domains
    }

    /// The DNS servers that the sandbox may reach.
    #[must_use]
    pub fn nameservers(&self) -> &[IpAddr] {
        self.nameservers.addresses()
    }

    /// Whether [`Self::nameservers`] is the operator's default instead of the sandbox's
    /// `dnsServers`.
    #[must_use]
    pub const fn uses_default_nameserver(&self) -> bool {
        self.nameservers.is_default()
    }

    /// The SOCKS5 proxy that tunnels outbound TCP.
    #[must_use]
    pub const fn egress_proxy(&self) -> Option<&Socks5Proxy> {
        self.egress_proxy.as_ref()
    }

    /// The headers that the agent sets in HTTPS requests. They grant nothing, and take effect only
    /// for names that the policy allows as names.
    #[must_use]
    pub const fn header_rules(&self) -> &HeaderRules {
        &self.header_rules
    }

    /// Whether the agent's proxy has to decide on or relay some of the sandbox's connections.
    #[must_use]
    pub const fn needs_proxy(&self) -> bool {
        self.has_domains || self.egress_proxy.is_some()
    }

    /// Whether the public URL works without the traffic token.
    #[must_use]
    pub const fn allow_public_traffic(&self) -> bool {
        self.allow_public_traffic
    }

    /// The networks whose clients may use the public URL. `None`: all.
    #[must_use]
    pub fn allow_public_from(&self) -> Option<&[IpNet]> {
        self.allow_public_from.as_deref()
    }

    /// Whether a client at this address may use the public URL.
    #[must_use]
    pub fn admits_client(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let covers = |network: &IpNet| cidr::covering_length(network, client).is_some();
        self.allow_public_from.as_ref().is_none_or(|networks| networks.iter().any(covers))
    }

    /// The Host header that the service in the sandbox receives, if it is not the client's.
    #[must_use]
    pub const fn mask_request_host(&self) -> Option<&HostMask> {
        self.mask_request_host.as_ref()
    }

    /// Ports on which the gateway connects with TLS.
    #[must_use]
    pub const fn https_ports(&self) -> &BTreeSet<u16> {
        &self.https_ports
    }
}

fn parse_rules(
    network: &NetworkConfig,
    defaults: &PolicyDefaults,
) -> Result<HeaderRules, ValidationError> {
    let rules = network.rules.as_ref();
    let parse = |rules| HeaderRules::new(rules, &defaults.rule_limits);
    Ok(rules.map(parse).transpose()?.unwrap_or_default())
}

/// Resolves `allowInternetAccess`. The field is next to `network`. In E2B's updates it is inside
/// it.
fn resolve_internet_access(
    beside: Option<bool>,
    network: &NetworkConfig,
) -> Result<bool, ValidationError> {
    match (beside, network.allow_internet_access) {
        (Some(beside), Some(inside)) if beside != inside => Err(ValidationError::about_field(
            "network.allowInternetAccess",
            "differs from allowInternetAccess beside network; give it once",
        )),
        (beside, inside) => Ok(beside.or(inside).unwrap_or(true)),
    }
}

/// Explains why `denyOut` contains no names.
const NO_DENIED_DOMAINS: &str =
    "a domain cannot be denied; deny 0.0.0.0/0 and list what to allow in allowOut";

pub(super) fn parse_allow_out_entry(entry: &str) -> Result<AllowOutEntry, String> {
    let meant_as_address = cidr::is_sdk_constant(entry) || cidr::looks_like_address(entry);
    let read = if entry.is_empty() || meant_as_address {
        cidr::parse_sandbox_cidr(entry, entry_hints::ADDRESSES_ONLY_HINT)
            .map(AllowOutEntry::Network)
    } else {
        DomainPattern::parse(entry).map(AllowOutEntry::Domain)
    };
    read.map_err(|problem| entry_hints::allow_out_entry_hint(entry).unwrap_or(problem))
}

pub(super) fn parse_deny_out_entry(entry: &str) -> Result<IpNet, String> {
    cidr::parse_sandbox_cidr(entry, NO_DENIED_DOMAINS)
}

/// Explains why `allowPublicFrom` contains no names.
const NO_CLIENT_NAMES: &str = "clients are told by their addresses; write an address or a CIDR";

/// An empty list would admit nobody, which is hardly meant.
fn parse_client_networks(
    entries: Option<&[String]>,
) -> Result<Option<Vec<IpNet>>, ValidationError> {
    let Some(entries) = entries else { return Ok(None) };
    if entries.is_empty() {
        let problem = "names no network, so nobody could use the public URL; leave it out to \
                       admit everybody";
        return Err(ValidationError::about_field("network.allowPublicFrom", problem));
    }
    let parse = |entry: &str| cidr::parse_sandbox_cidr(entry, NO_CLIENT_NAMES);
    entry_list::parse_entries("network.allowPublicFrom", entries, parse).map(Some)
}

/// Whether there are domains. They are only meaningful if everything else is denied.
fn check_domains_need_deny_all(
    allow_out: &[AllowOutEntry],
    denies_all: bool,
) -> Result<bool, ValidationError> {
    let names = |target: &AllowOutEntry| matches!(target, AllowOutEntry::Domain(_));
    match allow_out.iter().position(names) {
        None => Ok(false),
        Some(_) if denies_all => Ok(true),
        Some(index) => Err(ValidationError::about_entry(
            format!("network.allowOut[{index}]"),
            allow_out[index].to_string(),
            format!(
                "a domain can be allowed only when all other traffic is denied: add {ALL_TRAFFIC} \
                 (ALL_TRAFFIC) to denyOut, or set allowInternetAccess to false"
            ),
        )),
    }
}

fn parse_https_ports(ports: Option<&[u16]>) -> Result<BTreeSet<u16>, ValidationError> {
    let ports = ports.unwrap_or_default();
    entry_list::check_length("network.httpsPorts", ports.len(), MAX_LIST_ENTRIES)?;
    match ports.iter().position(|port| *port == 0) {
        None => Ok(ports.iter().copied().collect()),
        Some(index) => Err(ValidationError::about_entry(
            format!("network.httpsPorts[{index}]"),
            "0",
            "a port is a number from 1 to 65535",
        )),
    }
}

#[cfg(test)]
mod tests;
