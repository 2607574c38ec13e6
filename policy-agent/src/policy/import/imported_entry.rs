//! One entry of another tool's list.

use ipnet::IpNet;

use crate::policy::{
    DomainName, DomainOrIp, DomainPattern, cidr, entry_hints, host_and_port::HostAndPort,
};

/// Names of the machine itself.
const LOCAL_NAMES: [&str; 3] = ["localhost", "host.docker.internal", "gateway.docker.internal"];

/// Where an entry leads, and its port.
pub(super) struct ImportedEntry {
    pub(super) target: EntryTarget,
    pub(super) port: Option<u16>,
}

/// Where an entry leads.
pub(super) enum EntryTarget {
    Networks(Vec<IpNet>),
    Domain(DomainPattern),
}

impl ImportedEntry {
    /// Parses an address, a CIDR, a range, a name or pattern, or a URL, with or without a port.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::without_port(EntryTarget::Domain(DomainPattern::AnyDomain)));
        }
        let problem = match cidr::parse_sandbox_cidr(text, "") {
            Ok(net) => return Ok(Self::without_port(EntryTarget::Networks(vec![net]))),
            Err(problem) => problem,
        };
        if let Some(nets) = entry_hints::parse_address_range(text) {
            return Ok(Self::without_port(EntryTarget::Networks(nets)));
        }
        if cidr::looks_like_address(text) && text.contains('/') && !text.contains("://") {
            return Err(problem);
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
        let Some(suffix) = rest.strip_prefix("*.").or_else(|| rest.strip_prefix('.')) else {
            return Self::of_host(HostAndPort::parse_host_or_url(text)?);
        };
        let suffix =
            if scheme.is_empty() { suffix.to_owned() } else { format!("{scheme}://{suffix}") };
        let HostAndPort { host, port } = HostAndPort::parse_host_or_url(&suffix)?;
        let pattern = DomainPattern::parse(&format!("*.{host}"))?;
        Ok(Self { target: EntryTarget::Domain(pattern), port })
    }

    /// Whether this is the machine that the entry is used on.
    pub(super) fn is_local(&self) -> bool {
        match &self.target {
            EntryTarget::Networks(nets) => nets.iter().all(|net| net.addr().is_loopback()),
            EntryTarget::Domain(DomainPattern::Exact(name)) => LOCAL_NAMES.contains(&name.as_str()),
            EntryTarget::Domain(_) => false,
        }
    }

    /// Whether this is a name without a dot, which words of a text are, too.
    pub(super) fn is_single_label(&self) -> bool {
        let is_single = |name: &DomainName| !name.as_str().contains('.');
        matches!(&self.target, EntryTarget::Domain(DomainPattern::Exact(name)) if is_single(name))
    }

    fn of_host(HostAndPort { host, port }: HostAndPort) -> Result<Self, String> {
        let target = match host {
            DomainOrIp::Address(address) => EntryTarget::Networks(vec![address.into()]),
            DomainOrIp::Domain(name) => EntryTarget::Domain(DomainPattern::parse(name.as_str())?),
        };
        Ok(Self { target, port })
    }

    const fn without_port(target: EntryTarget) -> Self {
        Self { target, port: None }
    }
}
