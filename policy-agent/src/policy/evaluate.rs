//! A slow and obvious evaluation of whether a sandbox may reach a destination: it checks the lists
//! line by line, in order of precedence. It never uses the output of `compile`. Tests compare both
//! with each other and with the kernel program.
//!
//! Lines 1 to 3 apply to packets and connections, not destinations, and are not evaluated here.

use std::net::IpAddr;

use policy_common::{reason::Reason, verdict::NO_RULE};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    DomainName, Floor, Policy, RuleRef, cidr,
    requested_name::is_ip_literal,
    rule_reference::{self, longest_entry},
    sandbox_policy::AllowOutEntry,
};

/// IP protocol number of TCP.
pub const IPPROTO_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const IPPROTO_UDP: u8 = 17;
/// Line 7 decides TCP connections to this port by the Host of their requests.
pub const HTTP_PORT: u16 = 80;
/// Line 7 decides TCP connections to this port by their SNI.
pub const HTTPS_PORT: u16 = 443;

/// A destination that a sandbox may want to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowDestination {
    /// The address in the packet. An IPv4-mapped address means an IPv6 packet.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port, if the protocol has ports. If unknown, it is assumed to have no special meaning.
    pub port: Option<u16>,
    /// The requested name (SNI or Host), if known.
    pub host: Option<String>,
}

/// The verdict about a destination, and its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the packet passes.
    pub allowed: bool,
    /// Whether it passes only because the sandbox is observed. The reason is what would deny it.
    #[serde(skip_serializing_if = "is_false")]
    pub would_deny: bool,
    /// The reason.
    #[serde(serialize_with = "label")]
    #[schema(value_type = String)]
    pub reason: Reason,
    /// The line of precedence that decided.
    pub line: u8,
    /// The deciding rule, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// Whether line 7 applied. Another name, or none, may have another verdict.
    pub by_name: bool,
    /// Whether the sandbox's `egressProxy` must carry the connection.
    pub tunnel: bool,
}

/// The result of a matching line: its reason, and the index of the rule.
type RuleMatch = (Reason, u32);

/// Judges a connection or packet by lines 4 to 9. If line 7 applies, its name is judged.
#[must_use]
pub fn evaluate_connection(
    policy: &Policy,
    floor: &Floor,
    destination: &FlowDestination,
) -> Explanation {
    let packet = evaluate_packet(policy, floor, destination);
    if !packet.by_name {
        return packet;
    }
    let host = destination.host.as_deref().filter(|host| !is_ip_literal(host));
    let Some(host) = host else { return evaluate_by_address(policy, floor, destination.address) };
    let explanation =
        match DomainName::parse_requested(host).map(|name| most_specific_domain(policy, &name)) {
            Ok(Some(place)) => {
                let rule = RuleRef::from_domain(policy, rule_reference::rule_index(place));
                Explanation {
                    rule,
                    ..build_explanation(policy, floor, Reason::AllowName, NO_RULE, true)
                }
            }
            Ok(None) => {
                let reason = Reason::NameNotAllowed;
                build_explanation(policy, floor, reason, NO_RULE, passes(policy, reason))
            }
            Err(_) => build_explanation(policy, floor, Reason::InvalidName, NO_RULE, false),
        };
    Explanation { by_name: true, ..explanation }
}

/// Judges a packet like the kernel program, which does not know names. If line 7 applies, it is
/// allowed to the egress proxy.
#[must_use]
pub fn evaluate_packet(
    policy: &Policy,
    floor: &Floor,
    destination: &FlowDestination,
) -> Explanation {
    let address = destination.address;
    let (reason, index) = match_platform_allow(floor, address)
        .or_else(|| match_platform_deny(policy, floor, destination))
        .or_else(|| match_allow_out(policy, address))
        .or_else(|| match_dns_servers(policy, address))
        .or_else(|| match_domain_ports(policy, destination))
        .or_else(|| match_deny_out(policy, address))
        .unwrap_or((Reason::NoRule, NO_RULE));
    let would_deny = would_deny(policy, reason);
    let passes = would_deny || matches!(reason.line(), 6 | 7 | 9);
    let carried = destination.protocol == IPPROTO_TCP && passes;
    let by_name = reason == Reason::ByName;
    Explanation { by_name, ..build_explanation(policy, floor, reason, index, carried) }
}

/// Judges a connection to which line 7 applies, but which has no name, by its address alone: first
/// by the host's own addresses, then by lines 8 and 9.
pub(super) fn evaluate_by_address(policy: &Policy, floor: &Floor, address: IpAddr) -> Explanation {
    let own =
        || Some((Reason::PlatformDeny, rule_reference::rule_index(floor.matching_deny(address)?)));
    let (reason, index) = floor
        .is_denied_host_address(address)
        .then(own)
        .flatten()
        .or_else(|| match_deny_out(policy, address))
        .unwrap_or((Reason::NoRule, NO_RULE));
    Explanation {
        by_name: true,
        ..build_explanation(policy, floor, reason, index, passes(policy, reason))
    }
}

/// `carried`: an `egressProxy` would carry the connection.
fn build_explanation(
    policy: &Policy,
    floor: &Floor,
    reason: Reason,
    index: u32,
    carried: bool,
) -> Explanation {
    Explanation {
        allowed: passes(policy, reason),
        would_deny: would_deny(policy, reason),
        reason,
        line: reason.line(),
        rule: rule_reference::resolve_rule(policy, floor, reason, index),
        by_name: false,
        tunnel: carried && policy.egress_proxy().is_some(),
    }
}

/// Whether a connection with this reason passes.
pub(super) const fn passes(policy: &Policy, reason: Reason) -> bool {
    reason.passes() || would_deny(policy, reason)
}

/// Whether the sandbox's own policy denies it, and is only observed.
pub(super) const fn would_deny(policy: &Policy, reason: Reason) -> bool {
    policy.is_observed() && matches!(reason, Reason::DenyOut | Reason::NameNotAllowed)
}

/// Line 4.
fn match_platform_allow(floor: &Floor, address: IpAddr) -> Option<RuleMatch> {
    floor
        .matching_allow(address)
        .map(|place| (Reason::PlatformAllow, rule_reference::rule_index(place)))
}

/// Line 5. If line 7 applies, the host's own addresses are judged by name, because the gateway may
/// listen there.
fn match_platform_deny(
    policy: &Policy,
    floor: &Floor,
    destination: &FlowDestination,
) -> Option<RuleMatch> {
    let place = floor.matching_deny(destination.address)?;
    let by_name = floor.host_rule(place).and_then(|_| match_domain_ports(policy, destination));
    Some(by_name.unwrap_or((Reason::PlatformDeny, rule_reference::rule_index(place))))
}

/// Line 6.
fn match_allow_out(policy: &Policy, address: IpAddr) -> Option<RuleMatch> {
    let lengths = policy.allow_out().iter().map(|target| match target {
        AllowOutEntry::Network(net) => cidr::covering_length(net, address),
        AllowOutEntry::Domain(_) => None,
    });
    longest_entry(lengths).map(|place| (Reason::AllowOut, rule_reference::rule_index(place)))
}

/// Line 6, after `allowOut`.
fn match_dns_servers(policy: &Policy, address: IpAddr) -> Option<RuleMatch> {
    let place = policy.nameservers().iter().position(|server| *server == address)?;
    let default = policy.uses_default_nameserver();
    Some((Reason::DnsServer, if default { NO_RULE } else { rule_reference::rule_index(place) }))
}

/// Line 7.
fn match_domain_ports(policy: &Policy, destination: &FlowDestination) -> Option<RuleMatch> {
    let judged = is_judged_by_name(policy, destination.protocol, destination.port);
    judged.then_some((Reason::ByName, NO_RULE))
}

/// Whether line 7 applies to this protocol and port.
#[must_use]
pub fn is_judged_by_name(policy: &Policy, protocol: u8, port: Option<u16>) -> bool {
    let named = matches!(port, Some(HTTP_PORT | HTTPS_PORT));
    protocol == IPPROTO_TCP && named && policy.has_domains()
}

/// Line 8. `allowInternetAccess: false` denies everything after the list.
fn match_deny_out(policy: &Policy, address: IpAddr) -> Option<RuleMatch> {
    let lengths = policy.deny_out().iter().map(|net| cidr::covering_length(net, address));
    match longest_entry(lengths) {
        Some(place) => Some((Reason::DenyOut, rule_reference::rule_index(place))),
        None if policy.allows_internet() => None,
        None => Some((Reason::DenyOut, NO_RULE)),
    }
}

/// The domain of `allowOut` that matches a name most specifically.
fn most_specific_domain(policy: &Policy, name: &DomainName) -> Option<usize> {
    longest_entry(policy.allow_out().iter().map(|target| match target {
        AllowOutEntry::Domain(pattern) => pattern.matches(name).then(|| pattern.specificity()),
        AllowOutEntry::Network(_) => None,
    }))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_false(value: &bool) -> bool {
    !*value
}

fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}

#[cfg(test)]
mod tests;
