//! Warnings of `check` and `apply` about entries that are valid but have no effect.

use std::{fmt, net::IpAddr};

use ipnet::IpNet;

use super::{
    ALL_TRAFFIC, DomainPattern, DomainSet, Floor, HeaderRule, NetworkConfig, Policy,
    ValidationError, address_ranges::AddressRanges, embedded_ipv4, rule_reference,
    sandbox_policy::AllowOutEntry,
};

/// Maximum number of warnings per sandbox.
const MAX_WARNINGS: usize = 20;

/// Something in a configuration that does not have the effect its author may expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyWarning(ValidationError);

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<PolicyWarning> for ValidationError {
    /// For callers that treat warnings as errors.
    fn from(PolicyWarning(invalid): PolicyWarning) -> Self {
        invalid
    }
}

/// The warnings about a sandbox's configuration: `network` as written, and its `policy` under this
/// floor. At most 20, followed by one that says so.
#[must_use]
pub fn policy_warnings(
    network: &NetworkConfig,
    policy: &Policy,
    floor: &Floor,
) -> Vec<PolicyWarning> {
    let written = network.allow_out.as_deref().unwrap_or_default();
    let mut found: Vec<_> = warn_nothing_denied(policy)
        .into_iter()
        .chain(warn_allow_out(policy, floor, written))
        .chain(warn_nameservers(policy, floor))
        .chain(warn_rules(policy))
        .take(MAX_WARNINGS + 1)
        .collect();
    if found.len() > MAX_WARNINGS {
        found.truncate(MAX_WARNINGS);
        found.push(ValidationError::about_field(
            "network",
            "has more such entries, which are not shown",
        ));
    }
    found.into_iter().map(PolicyWarning).collect()
}

fn warn_nothing_denied(policy: &Policy) -> Option<ValidationError> {
    let denies = !policy.deny_out().is_empty() || !policy.allows_internet();
    (!denies && !policy.allow_out().is_empty()).then(|| {
        let problem = format!(
            "has no effect, since nothing is denied; add {ALL_TRAFFIC} to denyOut, or set \
             allowInternetAccess to false"
        );
        ValidationError::about_field("network.allowOut", problem)
    })
}

/// Warns about entries of `allowOut`.
fn warn_allow_out(
    policy: &Policy,
    floor: &Floor,
    written: &[String],
) -> impl Iterator<Item = ValidationError> {
    let (closed, domains) = (ClosedPrefixes::from_floor(floor), DomainSet::from_policy(policy));
    policy.allow_out().iter().enumerate().filter_map(move |(place, target)| {
        let problem = match target {
            AllowOutEntry::Network(net) => closed.unreachable_problem(net),
            AllowOutEntry::Domain(pattern) => {
                redundant_problem(&domains, rule_reference::rule_index(place), pattern)
                    .or_else(|| unlikely_domain_problem(pattern))
            }
        }?;
        let entry = written.get(place).cloned().unwrap_or_else(|| target.to_string());
        Some(ValidationError::about_entry(format!("network.allowOut[{place}]"), entry, problem))
    })
}

fn warn_nameservers(policy: &Policy, floor: &Floor) -> impl Iterator<Item = ValidationError> {
    let default = policy.uses_default_nameserver();
    let servers = policy.nameservers().iter().enumerate();
    servers.filter(|(_, server)| !floor.admits(**server)).map(move |(place, server)| {
        let field = match default {
            true => "default_nameserver".to_owned(),
            false => format!("network.dnsServers[{place}]"),
        };
        let problem = format!(
            "{}; the sandbox cannot ask it, so it can resolve no name",
            describe_platform_deny(&IpNet::from(*server), floor)
        );
        ValidationError::about_entry(field, server.to_string(), problem)
    })
}

/// Warns about rules for names that `allowOut` does not allow as names.
fn warn_rules(policy: &Policy) -> impl Iterator<Item = ValidationError> {
    let is_idle = |rule: &&HeaderRule| {
        !rule.is_empty() && !policy.domains().any(|(_, allowed)| allowed.overlaps(rule.key()))
    };
    policy.header_rules().iter().filter(is_idle).map(|rule| {
        let problem = "has no effect: a rule grants nothing, and no domain of allowOut admits this \
                       name; add it to allowOut";
        ValidationError::about_entry("network.rules", rule.key().to_string(), problem)
    })
}

/// Prefixes that the floor denies regardless of a sandbox's policy.
pub(super) struct ClosedPrefixes<'a> {
    floor: &'a Floor,
    denied_ranges: AddressRanges,
    /// Exceptions from `denied_ranges`.
    allowed_ranges: AddressRanges,
}

impl<'a> ClosedPrefixes<'a> {
    pub(super) fn from_floor(floor: &'a Floor) -> Self {
        let embedded = floor.deny.iter().flat_map(|net| match net {
            IpNet::V4(v4) => embedded_ipv4::embedding_prefixes(*v4).map(IpNet::V6).collect(),
            IpNet::V6(_) => Vec::new(),
        });
        Self {
            floor,
            denied_ranges: floor.deny.iter().copied().chain(embedded).collect(),
            allowed_ranges: floor.allow.iter().copied().collect(),
        }
    }

    /// Explains why no address of a prefix can be reached.
    pub(super) fn unreachable_problem(&self, net: &IpNet) -> Option<String> {
        // An entry for all traffic means whatever is not denied.
        let closed = self.denied_ranges.contains_net(net) && !self.allowed_ranges.overlaps_net(net);
        if !closed || net.prefix_len() == 0 {
            return None;
        }
        let own = net.addr().is_loopback();
        let own = if own { " (inside the sandbox its own loopback needs no rule)" } else { "" };
        Some(format!("{}, so it is never reached{own}", describe_platform_deny(net, self.floor)))
    }
}

/// Describes the floor's entry that denies a prefix, and who can allow it.
fn describe_platform_deny(net: &IpNet, floor: &Floor) -> String {
    let address: IpAddr = net.network();
    let by = floor.matching_deny(address).and_then(|place| floor.deny.get(place));
    let by = by.map(|net| format!(" ({net})")).unwrap_or_default();
    format!("inside the operator's platform_deny{by}, and not in platform_allow")
}

/// Explains why the entry with this index allows nothing that another does not allow as well.
fn redundant_problem(domains: &DomainSet, place: u32, pattern: &DomainPattern) -> Option<String> {
    if let Some(first) = domains.first_equal(pattern).filter(|first| *first < place) {
        return Some(format!("the same as allowOut[{first}]; remove it"));
    }
    let (DomainPattern::Exact(name) | DomainPattern::Subdomains(name)) = pattern else {
        return None;
    };
    if let Some((wildcard, apex)) = domains.covering_wildcard(name) {
        return Some(format!("covered by allowOut[{wildcard}] (*.{apex}); remove one of them"));
    }
    let any = domains.first_equal(&DomainPattern::AnyDomain)?;
    Some(format!("covered by allowOut[{any}] (*); remove one of them"))
}

/// Explains why a name is unlikely to be requested.
fn unlikely_domain_problem(pattern: &DomainPattern) -> Option<String> {
    let (DomainPattern::Exact(name) | DomainPattern::Subdomains(name)) = pattern else {
        return None;
    };
    let name = name.as_str();
    if name == "localhost" || name.ends_with(".localhost") {
        return Some("the name of the sandbox's own loopback, which needs no rule".to_owned());
    }
    // `*.com` is a normal wildcard.
    if name.contains('.') || matches!(pattern, DomainPattern::Subdomains(_)) {
        return None;
    }
    let number = name.strip_prefix("as").unwrap_or_default();
    Some(if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
        "read as a name; a policy knows no AS numbers: write the CIDRs that the network announces"
            .to_owned()
    } else if ["any", "all", "internet", "everything", "world"].contains(&name) {
        format!("read as a name; write * for any name, and {ALL_TRAFFIC} for all traffic")
    } else {
        "no public name has a single label; write the full name, like example.com".to_owned()
    })
}

#[cfg(test)]
mod tests;
