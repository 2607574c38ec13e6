//! The slow and obvious answer to "may this sandbox reach that": the lists, line by line, in the
//! order of precedence. It never looks at what `compile` made; the tests hold both, and the kernel
//! program, against each other.
//!
//! Lines 1 to 3 are about packets and connections, not destinations, and are not asked here.

use std::net::IpAddr;

use policy_common::{policy::NO_RULE, reason::Reason};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    Floor, Name, Policy, RuleRef,
    by_name::is_address,
    cidr,
    policy::Target,
    rule::{self, longest},
};

/// IP protocol number of TCP.
const TCP: u8 = 6;
/// TCP ports where line 7 judges by name.
const NAMED_PORTS: [u16; 2] = [80, 443];

/// What a sandbox wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The address in the packet. An IPv4-mapped one is what it says: an IPv6 packet.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port, where the protocol has one. Unknown: judged as a port that means nothing special.
    pub port: Option<u16>,
    /// The name in the request (SNI or Host), if it is known.
    pub host: Option<String>,
}

/// The verdict about a destination, and what decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Whether the packet passes.
    pub allowed: bool,
    /// Why.
    #[serde(serialize_with = "label")]
    #[schema(value_type = String)]
    pub reason: Reason,
    /// The line of precedence that decided.
    pub line: u8,
    /// The rule that decided, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleRef>,
    /// Whether line 7 caught it: another name, or none, may have another verdict.
    pub by_name: bool,
    /// Whether the sandbox's `egressProxy` has to carry the connection.
    pub tunnel: bool,
}

/// A line that matched: its reason, and the index of the rule.
type Match = (Reason, u32);

/// Judges a connection or a packet by lines 4 to 9; what line 7 catches by its name.
#[must_use]
pub fn explain(policy: &Policy, floor: &Floor, destination: &Destination) -> Explanation {
    let packet = explain_packet(policy, floor, destination);
    if !packet.by_name {
        return packet;
    }
    let host = destination.host.as_deref().filter(|host| !is_address(host));
    let Some(host) = host else { return by_address(policy, floor, destination.address) };
    let explanation = match Name::asked(host).map(|name| matching(policy, &name)) {
        Ok(Some(place)) => {
            let rule = RuleRef::domain(policy, rule::index(place));
            Explanation { rule, ..verdict(policy, floor, Reason::AllowName, NO_RULE, true) }
        }
        Ok(None) => verdict(policy, floor, Reason::NameNotAllowed, NO_RULE, false),
        Err(_) => verdict(policy, floor, Reason::InvalidName, NO_RULE, false),
    };
    Explanation { by_name: true, ..explanation }
}

/// Judges a packet as the kernel does, which knows no names: what line 7 catches is allowed as far
/// as the egress proxy.
#[must_use]
pub fn explain_packet(policy: &Policy, floor: &Floor, destination: &Destination) -> Explanation {
    let address = destination.address;
    let (reason, index) = platform_allow(floor, address)
        .or_else(|| platform_deny(policy, floor, destination))
        .or_else(|| allow_out(policy, address))
        .or_else(|| dns_servers(policy, address))
        .or_else(|| names(policy, destination))
        .or_else(|| deny_out(policy, address))
        .unwrap_or((Reason::NoRule, NO_RULE));
    let carried = destination.protocol == TCP && matches!(reason.line(), 6 | 7 | 9);
    let by_name = reason == Reason::ByName;
    Explanation { by_name, ..verdict(policy, floor, reason, index, carried) }
}

/// Judges by the address alone what line 7 caught and what asks for no name: the host's own
/// addresses, then lines 8 and 9.
pub(super) fn by_address(policy: &Policy, floor: &Floor, address: IpAddr) -> Explanation {
    let own = || Some((Reason::PlatformDeny, rule::index(floor.denying(address)?)));
    let (reason, index) = floor
        .denies_as_host(address)
        .then(own)
        .flatten()
        .or_else(|| deny_out(policy, address))
        .unwrap_or((Reason::NoRule, NO_RULE));
    Explanation { by_name: true, ..verdict(policy, floor, reason, index, reason.passes()) }
}

/// `carried`: an `egressProxy` would carry it.
fn verdict(
    policy: &Policy,
    floor: &Floor,
    reason: Reason,
    index: u32,
    carried: bool,
) -> Explanation {
    Explanation {
        allowed: reason.passes(),
        reason,
        line: reason.line(),
        rule: rule::rule(policy, floor, reason, index),
        by_name: false,
        tunnel: carried && policy.tunnel().is_some(),
    }
}

/// Line 4.
fn platform_allow(floor: &Floor, address: IpAddr) -> Option<Match> {
    floor.allowing(address).map(|place| (Reason::PlatformAllow, rule::index(place)))
}

/// Line 5. What names the host itself is judged by its name where line 7 does so: the gateway may
/// listen there.
fn platform_deny(policy: &Policy, floor: &Floor, destination: &Destination) -> Option<Match> {
    let place = floor.denying(destination.address)?;
    let by_name = floor.host_entry(place).and_then(|_| names(policy, destination));
    Some(by_name.unwrap_or((Reason::PlatformDeny, rule::index(place))))
}

/// Line 6.
fn allow_out(policy: &Policy, address: IpAddr) -> Option<Match> {
    let lengths = policy.allow_out().iter().map(|target| match target {
        Target::Net(net) => cidr::length(net, address),
        Target::Name(_) => None,
    });
    longest(lengths).map(|place| (Reason::AllowOut, rule::index(place)))
}

/// Line 6, after `allowOut`.
fn dns_servers(policy: &Policy, address: IpAddr) -> Option<Match> {
    let place = policy.nameservers().iter().position(|server| *server == address)?;
    let default = policy.nameserver_is_default();
    Some((Reason::DnsServer, if default { NO_RULE } else { rule::index(place) }))
}

/// Line 7.
fn names(policy: &Policy, destination: &Destination) -> Option<Match> {
    let named = destination.port.is_some_and(|port| NAMED_PORTS.contains(&port));
    let judged = destination.protocol == TCP && named && policy.has_names();
    judged.then_some((Reason::ByName, NO_RULE))
}

/// Line 8. `allowInternetAccess: false` stands behind the list, as a deny of everything.
fn deny_out(policy: &Policy, address: IpAddr) -> Option<Match> {
    let lengths = policy.deny_out().iter().map(|net| cidr::length(net, address));
    match longest(lengths) {
        Some(place) => Some((Reason::DenyOut, rule::index(place))),
        None if policy.allows_internet() => None,
        None => Some((Reason::DenyOut, NO_RULE)),
    }
}

/// The domain of `allowOut` that matches a name, the most specific first.
fn matching(policy: &Policy, name: &Name) -> Option<usize> {
    longest(policy.allow_out().iter().map(|target| match target {
        Target::Name(pattern) => pattern.matches(name).then(|| pattern.specificity()),
        Target::Net(_) => None,
    }))
}

fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}

#[cfg(test)]
mod tests {
    use super::super::{Defaults, NetworkConfig, parse};
    use super::*;

    const UDP: u8 = 17;

    /// What `explain` says, in one line: reason, and rule or name.
    fn verdict(network: &str, floor: &Floor, destination: &str, protocol: u8) -> String {
        let network: NetworkConfig = parse(network.as_bytes()).expect(network);
        let policy = Policy::new(&network, None, &Defaults::default(), floor).expect("a policy");
        // `address`, `address port` or `address port host`.
        let mut words = destination.split(' ');
        let destination = Destination {
            address: words.next().and_then(|word| word.parse().ok()).expect(destination),
            protocol,
            port: words.next().map(|port| port.parse().expect(destination)),
            host: words.next().map(str::to_owned),
        };
        let explanation = explain(&policy, floor, &destination);
        assert_eq!(explanation.allowed, explanation.reason.passes());
        assert_eq!(explanation.line, explanation.reason.line());
        let mut line = explanation.reason.label().to_owned();
        if let Some(shown) = explanation.rule {
            line.push_str(&format!(" {shown}"));
        }
        if explanation.tunnel {
            line.push_str(" (tunnel)");
        }
        line
    }

    #[test]
    fn the_order_of_the_lines() {
        let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let floor = Floor::new(&strings(&["10.0.0.53"]), None).expect("a floor");
        let network = r#"{"allowOut":["10.0.0.0/8","1.1.0.0/16","1.1.1.0/24","a.example"],
            "denyOut":["0.0.0.0/0","1.1.1.1","9.9.9.9"],"dnsServers":["9.9.9.9","1.1.1.1"]}"#;
        for (destination, expected) in [
            ("10.0.0.53", "platform_allow platform_allow[0]: 10.0.0.53/32"),
            ("10.0.0.54", "platform_deny platform_deny[1]: 10.0.0.0/8"),
            ("::ffff:10.0.0.54", "platform_deny platform_deny[1]: 10.0.0.0/8"),
            ("2001:0:808:808::f5ff:fffe", "platform_deny platform_deny[1]: 10.0.0.0/8"),
            ("1.1.2.2", "allow_out network.allowOut[1]: 1.1.0.0/16"),
            ("1.1.1.1", "allow_out network.allowOut[2]: 1.1.1.0/24"),
            ("9.9.9.9", "dns_server network.dnsServers[0]: 9.9.9.9"),
            ("9.9.9.9 443", "dns_server network.dnsServers[0]: 9.9.9.9"),
            ("9.9.9.8 443", "deny_out network.denyOut[0]: 0.0.0.0/0"),
            ("9.9.9.8 80 A.example.", "allow_name network.allowOut[3]: a.example"),
            ("9.9.9.8 80 b.example", "name_not_allowed"),
            ("9.9.9.8 443 9.9.9.8", "deny_out network.denyOut[0]: 0.0.0.0/0"),
            ("1.1.1.1 443 b.example", "allow_out network.allowOut[2]: 1.1.1.0/24"),
            ("10.0.0.54 443 a.example", "platform_deny platform_deny[1]: 10.0.0.0/8"),
            ("2001:db8::1 443", "deny_out network.denyOut[0]: 0.0.0.0/0"),
            ("9.9.9.8 8080 a.example", "deny_out network.denyOut[0]: 0.0.0.0/0"),
            ("9.9.9.8", "deny_out network.denyOut[0]: 0.0.0.0/0"),
            ("2001:db8::1", "deny_out network.denyOut[0]: 0.0.0.0/0"),
        ] {
            assert_eq!(verdict(network, &floor, destination, TCP), expected, "{destination}");
        }
        let quic = verdict(network, &floor, "9.9.9.8 443 a.example", UDP);
        assert_eq!(quic, "deny_out network.denyOut[0]: 0.0.0.0/0");
    }

    #[test]
    fn settings_are_named_where_no_entry_decides() {
        let network = r#"{"allowOut":["*"],"allowInternetAccess":false}"#;
        let floor = Floor::default();
        for (destination, expected) in [
            ("8.8.8.8 53", "dns_server default_nameserver: 8.8.8.8"),
            ("1.1.1.1 53", "deny_out allowInternetAccess: false"),
            ("2001:db8::1 53", "deny_out allowInternetAccess: false"),
            ("1.1.1.1 443 x.example", "allow_name network.allowOut[0]: *"),
            ("1.1.1.1 443 a_name", "allow_name network.allowOut[0]: *"),
            ("1.1.1.1 443 -a.name-", "allow_name network.allowOut[0]: *"),
            ("1.1.1.1 443 no!name", "invalid_name"),
            ("1.1.1.1 443 1.1.1.1", "deny_out allowInternetAccess: false"),
            ("1.1.1.1 443 [::1]", "deny_out allowInternetAccess: false"),
        ] {
            assert_eq!(verdict(network, &floor, destination, TCP), expected, "{destination}");
        }
        assert_eq!(verdict("{}", &floor, "1.1.1.1 443", TCP), "no_rule");
        assert_eq!(verdict("{}", &floor, "2001:db8::1 443", TCP), "no_rule");
    }

    #[test]
    fn the_most_specific_domain_is_named_the_first_among_equals() {
        let network = r#"{"allowOut":["*","*.example","*.a.example","b.a.example","B.a.example"],
            "allowInternetAccess":false}"#;
        for (host, rule) in [
            ("b.a.example", "network.allowOut[3]: b.a.example"),
            ("c.a.example", "network.allowOut[2]: *.a.example"),
            ("a.example", "network.allowOut[1]: *.example"),
            ("example", "network.allowOut[0]: *"),
        ] {
            let said = verdict(network, &Floor::default(), &format!("9.9.9.9 443 {host}"), TCP);
            assert_eq!(said, format!("allow_name {rule}"));
        }
    }

    #[test]
    fn the_tunnel_carries_tcp_that_lines_6_7_and_9_let_out() {
        let floor = Floor::new(&["7.7.7.7".to_owned()], None).expect("a floor");
        let network = r#"{"allowOut":["1.1.1.1"],"denyOut":["2.2.2.2"],
            "egressProxy":{"address":"p.example:1080"}}"#;
        for (destination, protocol, expected) in [
            ("7.7.7.7 22", TCP, "platform_allow platform_allow[0]: 7.7.7.7/32"),
            ("10.0.0.1 22", TCP, "platform_deny platform_deny[1]: 10.0.0.0/8"),
            ("1.1.1.1 22", TCP, "allow_out network.allowOut[0]: 1.1.1.1/32 (tunnel)"),
            ("1.1.1.1 22", UDP, "allow_out network.allowOut[0]: 1.1.1.1/32"),
            ("2.2.2.2 22", TCP, "deny_out network.denyOut[0]: 2.2.2.2/32"),
            ("3.3.3.3 22", TCP, "no_rule (tunnel)"),
            ("3.3.3.3 22", UDP, "no_rule"),
        ] {
            assert_eq!(verdict(network, &floor, destination, protocol), expected, "{destination}");
        }
    }

    #[test]
    fn json_names_the_reason() {
        let explanation = explain(
            &Policy::new(
                &NetworkConfig::default(),
                Some(false),
                &Defaults::default(),
                &Floor::default(),
            )
            .expect("a policy"),
            &Floor::default(),
            &Destination { address: [1, 1, 1, 1].into(), protocol: UDP, port: None, host: None },
        );
        assert_eq!(
            serde_json::to_string(&explanation).expect("serialises"),
            r#"{"allowed":false,"reason":"deny_out","line":8,"#.to_owned()
                + r#""rule":{"list":"allowInternetAccess","entry":"false"},"byName":false,"tunnel":false}"#
        );
    }
}
