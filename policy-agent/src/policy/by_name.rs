//! Line 7: what the egress proxy decides about a connection, by the name that it asks for.

use std::net::{IpAddr, Ipv6Addr};

use policy_common::reason::Reason;

use super::{Explanation, Floor, Name, Names, Policy, RuleRef, oracle};

/// The verdict about a connection that the kernel handed over to be judged by its name. `host` is
/// what the client says, without a port: the SNI, or the host of a request. Without a name, and
/// with an address in its place, the address of the packets alone decides.
#[must_use]
pub fn by_name(
    policy: &Policy,
    names: &Names,
    floor: &Floor,
    host: Option<&str>,
    address: IpAddr,
) -> Explanation {
    let host = match host {
        Some(host) if !is_address(host) => host,
        _ => return oracle::by_address(policy, floor, address),
    };
    let matching = Name::parse(host).map(|name| names.matching(&name));
    let (reason, place) = match matching {
        Ok(Some(place)) => (Reason::AllowName, Some(place)),
        Ok(None) => (Reason::NameNotAllowed, None),
        Err(_) => (Reason::InvalidName, None),
    };
    Explanation {
        allowed: reason.passes(),
        reason,
        line: reason.line(),
        rule: place.and_then(|place| RuleRef::domain(policy, place)),
        tunnel: reason.passes() && policy.tunnel().is_some(),
    }
}

/// Whether a host is an IP address, in brackets or not.
pub(super) fn is_address(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match bare {
        Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<IpAddr>().is_ok(),
    }
}
