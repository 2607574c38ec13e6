//! Lines 4 to 9 of the precedence: destinations.

use std::net::IpAddr;

use crate::{
    OracleReason, OracleVerdict, policy_reader::OraclePolicy, transport_header::PROTOCOL_TCP,
};

/// The destination of a packet.
pub(crate) struct PacketDestination {
    pub address: IpAddr,
    pub protocol: u8,
    /// The port, if the protocol has ports.
    pub port: Option<u16>,
}

/// What the lists say of a destination.
pub(crate) enum DestinationVerdict {
    /// The packet passes or is dropped.
    Final(OracleVerdict),
    /// The egress proxy decides or carries the connection.
    ToProxy,
}

/// Applies lines 4 to 9.
pub(crate) fn judge_destination(
    policy: &OraclePolicy,
    destination: &PacketDestination,
) -> DestinationVerdict {
    let decided = |reason, rule| DestinationVerdict::Final(OracleVerdict { reason, rule });
    let address = destination.address;
    let is_tcp = destination.protocol == PROTOCOL_TCP;
    let is_by_name = is_tcp && policy.has_domains && matches!(destination.port, Some(80 | 443));
    // Line 4.
    if let Some(rule) = policy.floor.platform_allow(address) {
        return decided(OracleReason::PlatformAllow, Some(rule));
    }
    // Line 5. The host's own web ports are judged by name.
    match policy.floor.platform_deny(address) {
        Some(rule) if rule.is_host_address && is_by_name => return DestinationVerdict::ToProxy,
        Some(rule) => return decided(OracleReason::PlatformDeny, Some(rule.shown)),
        None => {}
    }
    let (reason, rule) = if let Some((reason, rule)) = allowing_rule(policy, address) {
        (reason, Some(rule)) // line 6
    } else if is_by_name {
        return DestinationVerdict::ToProxy; // line 7
    } else if let Some(rule) = denying_rule(policy, address) {
        return decided(OracleReason::DenyOut, Some(rule)); // line 8
    } else {
        (OracleReason::NoRule, None) // line 9
    };
    let is_carried = is_tcp && policy.has_egress_proxy;
    if is_carried { DestinationVerdict::ToProxy } else { decided(reason, rule) }
}

fn allowing_rule(policy: &OraclePolicy, address: IpAddr) -> Option<(OracleReason, String)> {
    let allow_out = policy.allow_out.longest(|entry| entry.length_if_covers(address));
    allow_out.map(|rule| (OracleReason::AllowOut, rule.shown)).or_else(|| {
        policy.matching_nameserver(address).map(|server| (OracleReason::DnsServer, server))
    })
}

fn denying_rule(policy: &OraclePolicy, address: IpAddr) -> Option<String> {
    let deny_out = policy.deny_out.longest(|entry| entry.length_if_covers(address));
    let otherwise = || (!policy.allows_internet).then(|| "allowInternetAccess: false".to_owned());
    deny_out.map(|rule| rule.shown).or_else(otherwise)
}
