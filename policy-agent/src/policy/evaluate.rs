//! The slow and obvious answer to "may this sandbox reach that": the lists, line by line, in the
//! order of precedence. It never looks at what `compile` made; the tests hold both, and the kernel
//! program, against each other.
//!
//! Lines 1 to 3 are about packets and connections, not destinations, and are not asked here.

use std::net::IpAddr;

use policy_common::{reason::Reason, verdict::NO_RULE};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::{
    DomainName, Floor, Policy, RuleRef, cidr,
    evaluate_by_name::is_ip_literal,
    rule_reference::{self, longest_entry},
    sandbox_policy::AllowOutEntry,
};

/// IP protocol number of TCP.
const IPPROTO_TCP: u8 = 6;
/// TCP ports where line 7 judges by name.
const NAME_JUDGED_PORTS: [u16; 2] = [80, 443];

/// What a sandbox wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowDestination {
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
type RuleMatch = (Reason, u32);

/// Judges a connection or a packet by lines 4 to 9; what line 7 catches by its name.
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
            Ok(None) => build_explanation(policy, floor, Reason::NameNotAllowed, NO_RULE, false),
            Err(_) => build_explanation(policy, floor, Reason::InvalidName, NO_RULE, false),
        };
    Explanation { by_name: true, ..explanation }
}

/// Judges a packet as the kernel does, which knows no names: what line 7 catches is allowed as far
/// as the egress proxy.
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
    let carried = destination.protocol == IPPROTO_TCP && matches!(reason.line(), 6 | 7 | 9);
    let by_name = reason == Reason::ByName;
    Explanation { by_name, ..build_explanation(policy, floor, reason, index, carried) }
}

/// Judges by the address alone what line 7 caught and what asks for no name: the host's own
/// addresses, then lines 8 and 9.
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
        ..build_explanation(policy, floor, reason, index, reason.passes())
    }
}

/// `carried`: an `egressProxy` would carry it.
fn build_explanation(
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
        rule: rule_reference::resolve_rule(policy, floor, reason, index),
        by_name: false,
        tunnel: carried && policy.egress_proxy().is_some(),
    }
}

/// Line 4.
fn match_platform_allow(floor: &Floor, address: IpAddr) -> Option<RuleMatch> {
    floor
        .matching_allow(address)
        .map(|place| (Reason::PlatformAllow, rule_reference::rule_index(place)))
}

/// Line 5. What names the host itself is judged by its name where line 7 does so: the gateway may
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
    let named = destination.port.is_some_and(|port| NAME_JUDGED_PORTS.contains(&port));
    let judged = destination.protocol == IPPROTO_TCP && named && policy.has_domains();
    judged.then_some((Reason::ByName, NO_RULE))
}

/// Line 8. `allowInternetAccess: false` stands behind the list, as a deny of everything.
fn match_deny_out(policy: &Policy, address: IpAddr) -> Option<RuleMatch> {
    let lengths = policy.deny_out().iter().map(|net| cidr::covering_length(net, address));
    match longest_entry(lengths) {
        Some(place) => Some((Reason::DenyOut, rule_reference::rule_index(place))),
        None if policy.allows_internet() => None,
        None => Some((Reason::DenyOut, NO_RULE)),
    }
}

/// The domain of `allowOut` that matches a name, the most specific first.
fn most_specific_domain(policy: &Policy, name: &DomainName) -> Option<usize> {
    longest_entry(policy.allow_out().iter().map(|target| match target {
        AllowOutEntry::Domain(pattern) => pattern.matches(name).then(|| pattern.specificity()),
        AllowOutEntry::Network(_) => None,
    }))
}

fn label<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.label())
}

#[cfg(test)]
mod tests {
    use super::super::{NetworkConfig, PolicyDefaults, parse_json};
    use super::*;

    const IPPROTO_UDP: u8 = 17;

    /// What `explain` says, in one line: reason, and rule or name.
    fn explain_in_one_line(
        network: &str,
        floor: &Floor,
        destination: &str,
        protocol: u8,
    ) -> String {
        let network: NetworkConfig = parse_json(network.as_bytes()).expect(network);
        let policy =
            Policy::new(&network, None, &PolicyDefaults::default(), floor).expect("a policy");
        // `address`, `address port` or `address port host`.
        let mut words = destination.split(' ');
        let destination = FlowDestination {
            address: words.next().and_then(|word| word.parse().ok()).expect(destination),
            protocol,
            port: words.next().map(|port| port.parse().expect(destination)),
            host: words.next().map(str::to_owned),
        };
        let explanation = evaluate_connection(&policy, floor, &destination);
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
            assert_eq!(
                explain_in_one_line(network, &floor, destination, IPPROTO_TCP),
                expected,
                "{destination}"
            );
        }
        let quic = explain_in_one_line(network, &floor, "9.9.9.8 443 a.example", IPPROTO_UDP);
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
            assert_eq!(
                explain_in_one_line(network, &floor, destination, IPPROTO_TCP),
                expected,
                "{destination}"
            );
        }
        assert_eq!(explain_in_one_line("{}", &floor, "1.1.1.1 443", IPPROTO_TCP), "no_rule");
        assert_eq!(explain_in_one_line("{}", &floor, "2001:db8::1 443", IPPROTO_TCP), "no_rule");
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
            let said = explain_in_one_line(
                network,
                &Floor::default(),
                &format!("9.9.9.9 443 {host}"),
                IPPROTO_TCP,
            );
            assert_eq!(said, format!("allow_name {rule}"));
        }
    }

    #[test]
    fn the_tunnel_carries_tcp_that_lines_6_7_and_9_let_out() {
        let floor = Floor::new(&["7.7.7.7".to_owned()], None).expect("a floor");
        let network = r#"{"allowOut":["1.1.1.1"],"denyOut":["2.2.2.2"],
            "egressProxy":{"address":"p.example:1080"}}"#;
        for (destination, protocol, expected) in [
            ("7.7.7.7 22", IPPROTO_TCP, "platform_allow platform_allow[0]: 7.7.7.7/32"),
            ("10.0.0.1 22", IPPROTO_TCP, "platform_deny platform_deny[1]: 10.0.0.0/8"),
            ("1.1.1.1 22", IPPROTO_TCP, "allow_out network.allowOut[0]: 1.1.1.1/32 (tunnel)"),
            ("1.1.1.1 22", IPPROTO_UDP, "allow_out network.allowOut[0]: 1.1.1.1/32"),
            ("2.2.2.2 22", IPPROTO_TCP, "deny_out network.denyOut[0]: 2.2.2.2/32"),
            ("3.3.3.3 22", IPPROTO_TCP, "no_rule (tunnel)"),
            ("3.3.3.3 22", IPPROTO_UDP, "no_rule"),
        ] {
            assert_eq!(
                explain_in_one_line(network, &floor, destination, protocol),
                expected,
                "{destination}"
            );
        }
    }

    #[test]
    fn json_names_the_reason() {
        let explanation = evaluate_connection(
            &Policy::new(
                &NetworkConfig::default(),
                Some(false),
                &PolicyDefaults::default(),
                &Floor::default(),
            )
            .expect("a policy"),
            &Floor::default(),
            &FlowDestination {
                address: [1, 1, 1, 1].into(),
                protocol: IPPROTO_UDP,
                port: None,
                host: None,
            },
        );
        assert_eq!(
            serde_json::to_string(&explanation).expect("serialises"),
            r#"{"allowed":false,"reason":"deny_out","line":8,"#.to_owned()
                + r#""rule":{"list":"allowInternetAccess","entry":"false"},"byName":false,"tunnel":false}"#
        );
    }
}
