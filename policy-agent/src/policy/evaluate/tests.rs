use super::super::{NetworkConfig, PolicyDefaults, parse_json};
use super::*;

const IPPROTO_UDP: u8 = 17;

/// The output of `explain` in one line: reason, and rule or name.
fn explain_in_one_line(network: &str, floor: &Floor, destination: &str, protocol: u8) -> String {
    let network: NetworkConfig = parse_json(network.as_bytes()).expect(network);
    let policy = Policy::new(&network, None, &PolicyDefaults::default(), floor).expect("a policy");
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
