//! Lines 4 to 9: destinations.

use std::net::IpAddr;

use policy_common::reason::Reason::{
    self, AllowOut, DenyOut, DnsServer, NoRule, PlatformAllow, PlatformDeny, ProxyUnavailable,
};
use policy_oracle::FloorLists;
use policy_testbed::packets::{ExtensionHeader, IpPayload, TcpFlags, test_hosts::SERVER};

use super::datapath_case::{
    DatapathCase, DatapathSettings, datagram_from_sandbox, floor_lists, sends, syn_from_sandbox,
    udp_from_sandbox,
};

/// Asserts the verdicts on datagrams to addresses.
fn assert_destinations(network: &str, floor: FloorLists, expected: &[(&str, Reason)]) {
    let setting = DatapathSettings { floor, ..DatapathSettings::default() };
    let steps: Vec<_> = expected
        .iter()
        .map(|(address, reason)| {
            let destination: IpAddr = address.parse().expect(address);
            sends(&format!("a datagram to {address}"), udp_from_sandbox(destination), *reason)
        })
        .collect();
    DatapathCase::with_settings(network, setting).assert_steps(&steps);
}

#[test]
fn the_floor_holds_even_if_the_sandbox_allows_everything() {
    assert_destinations(
        r#"{"allowOut": ["0.0.0.0/0", "169.254.169.254", "10.0.0.0/8"]}"#,
        FloorLists::default(),
        &[
            ("169.254.169.254", PlatformDeny),
            ("169.254.0.1", PlatformDeny),
            ("0.0.0.0", PlatformDeny),
            ("0.255.255.255", PlatformDeny),
            ("1.0.0.0", AllowOut),
            ("10.0.0.0", PlatformDeny),
            ("10.255.255.255", PlatformDeny),
            ("100.64.0.1", PlatformDeny),
            ("127.0.0.1", PlatformDeny),
            ("172.16.0.1", PlatformDeny),
            ("172.31.255.255", PlatformDeny),
            ("172.32.0.0", AllowOut),
            ("192.168.1.1", PlatformDeny),
            ("192.0.0.8", PlatformDeny),
            ("192.0.1.0", AllowOut),
            ("198.18.0.1", PlatformDeny),
            ("198.19.255.255", PlatformDeny),
            ("::", PlatformDeny),
            ("::1", PlatformDeny),
            ("fc00::1", PlatformDeny),
            ("fdff:ffff::1", PlatformDeny),
            ("fe80::1", PlatformDeny),
            ("febf::1", PlatformDeny),
            ("fec0::1", PlatformDeny),
            ("2001:db8:1::1", AllowOut),
            ("8.8.8.8", AllowOut),
        ],
    );
}

#[test]
fn broadcast_and_multicast_stay_denied() {
    assert_destinations(
        r#"{"allowOut": ["0.0.0.0/0"]}"#,
        FloorLists::default(),
        &[
            ("255.255.255.255", PlatformDeny),
            ("10.11.0.255", PlatformDeny),
            ("224.0.0.1", PlatformDeny),
            ("239.255.255.250", PlatformDeny),
            ("240.0.0.1", PlatformDeny),
            ("223.255.255.255", AllowOut),
            ("ff02::1", PlatformDeny),
            ("ff02::fb", PlatformDeny),
            ("ff05::2", PlatformDeny),
            ("ff0e::1", PlatformDeny),
        ],
    );
}

#[test]
fn an_embedded_ipv4_address_is_judged_by_the_floor() {
    assert_destinations(
        r#"{"allowOut": ["0.0.0.0/0", "64:ff9b::/96", "2002::/16"]}"#,
        FloorLists::default(),
        &[
            // 169.254.169.254, metadata: mapped, compatible, NAT64, 6to4, Teredo server and client.
            ("::ffff:169.254.169.254", PlatformDeny),
            ("::169.254.169.254", PlatformDeny),
            ("64:ff9b::169.254.169.254", PlatformDeny),
            ("2002:a9fe:a9fe::1", PlatformDeny),
            ("2001:0:a9fe:a9fe::1", PlatformDeny),
            ("2001:0:808:808:0:ffff:5601:5601", PlatformDeny),
            // 10.0.0.1
            ("::ffff:10.0.0.1", PlatformDeny),
            ("::10.0.0.1", PlatformDeny),
            ("64:ff9b::10.0.0.1", PlatformDeny),
            ("2002:a00:1:ffff:ffff:ffff:ffff:ffff", PlatformDeny),
            ("2001:0:a00:1:ffff:ffff:f7f7:f7f7", PlatformDeny),
            ("2001:0:808:808::f5ff:fffe", PlatformDeny),
            // 8.8.8.8
            ("::ffff:8.8.8.8", AllowOut),
            ("::8.8.8.8", AllowOut),
            ("64:ff9b::8.8.8.8", AllowOut),
            ("2002:808:808::1", AllowOut),
            ("2001:0:808:808:0:ffff:f7f7:f7f7", AllowOut),
            // Similar to the NAT64 prefix, but not NAT64.
            ("64:ff9b:1::169.254.169.254", PlatformDeny),
            ("2001:1:a9fe:a9fe::1", AllowOut),
        ],
    );
}

#[test]
fn an_embedded_address_counts_for_the_floor_only() {
    let network = r#"{"denyOut": ["8.8.8.8"]}"#;
    assert_destinations(
        network,
        FloorLists::default(),
        &[("8.8.8.8", DenyOut), ("64:ff9b::8.8.8.8", NoRule), ("2002:808:808::1", NoRule)],
    );
}

#[test]
fn rules_for_ipv4_apply_to_ipv6_as_documented() {
    let only_one = r#"{"allowOut": ["203.0.113.10"], "denyOut": ["0.0.0.0/0"]}"#;
    assert_destinations(
        only_one,
        FloorLists::default(),
        &[
            ("203.0.113.10", AllowOut),
            ("203.0.113.11", DenyOut),
            ("2001:db8:1::1", DenyOut),
            ("::ffff:203.0.113.10", DenyOut),
        ],
    );
    let all_but_one = r#"{"denyOut": ["203.0.113.10"]}"#;
    assert_destinations(
        all_but_one,
        FloorLists::default(),
        &[("203.0.113.10", DenyOut), ("2001:db8:1::1", NoRule)],
    );
    let no_ipv6 = r#"{"denyOut": ["::/0"]}"#;
    assert_destinations(
        no_ipv6,
        FloorLists::default(),
        &[("203.0.113.10", NoRule), ("2001:db8:1::1", DenyOut)],
    );
    let all = r#"{"denyOut": ["::/0"], "allowOut": ["0.0.0.0/0"]}"#;
    assert_destinations(
        all,
        FloorLists::default(),
        &[("203.0.113.10", AllowOut), ("2001:db8:1::1", AllowOut)],
    );
}

#[test]
fn prefixes_at_the_ends_of_the_address_space() {
    let network = r#"{"denyOut": [
        "255.255.255.0/24", "255.255.253.255", "128.0.0.0/4", "0.0.0.1",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120", "8000::/4", "::1"
    ]}"#;
    assert_destinations(
        network,
        floor_lists(&[], &[]),
        &[
            ("255.255.255.255", DenyOut),
            ("255.255.255.0", DenyOut),
            ("255.255.254.255", NoRule),
            ("255.255.253.255", DenyOut),
            ("255.255.253.254", NoRule),
            ("255.255.254.0", NoRule),
            ("127.255.255.255", NoRule),
            ("128.0.0.0", DenyOut),
            ("143.255.255.255", DenyOut),
            ("144.0.0.0", NoRule),
            ("0.0.0.0", NoRule),
            ("0.0.0.1", DenyOut),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", DenyOut),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:feff", NoRule),
            ("7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NoRule),
            ("8fff::", DenyOut),
            ("9000::", NoRule),
            ("::1", DenyOut),
            ("::2", NoRule),
        ],
    );
}

#[test]
fn from_everything_to_a_single_address() {
    let network = r#"{
        "denyOut": ["0.0.0.0/0"],
        "allowOut": ["203.0.113.10/32", "2001:db8:1::1/128", "198.51.100.128/25", "2001:db8:2::/48"]
    }"#;
    assert_destinations(
        network,
        FloorLists::default(),
        &[
            ("203.0.113.9", DenyOut),
            ("203.0.113.10", AllowOut),
            ("203.0.113.11", DenyOut),
            ("2001:db8:1::", DenyOut),
            ("2001:db8:1::1", AllowOut),
            ("2001:db8:1::2", DenyOut),
            ("198.51.100.127", DenyOut),
            ("198.51.100.128", AllowOut),
            ("2001:db8:2:ffff:ffff:ffff:ffff:ffff", AllowOut),
            ("2001:db8:3::", DenyOut),
        ],
    );
}

#[test]
fn allow_beats_deny_whatever_the_lengths_and_the_order() {
    let network = r#"{
        "denyOut": ["203.0.113.128/25", "203.0.113.200", "203.0.113.200", "203.0.0.0/8"],
        "allowOut": ["203.0.113.0/24", "203.0.113.0/24"]
    }"#;
    assert_destinations(
        network,
        FloorLists::default(),
        &[
            ("203.0.113.200", AllowOut),
            ("203.0.113.1", AllowOut),
            ("203.0.112.1", DenyOut),
            ("204.0.0.1", NoRule),
        ],
    );
}

#[test]
fn the_operators_allow_beats_everything() {
    let floor = floor_lists(
        &["10.0.0.53", "169.254.0.0/16", "2001:db8:53::/48"],
        &["169.254.169.254", "10.0.0.0/8", "::/0"],
    );
    assert_destinations(
        r#"{"denyOut": ["0.0.0.0/0"]}"#,
        floor,
        &[
            ("10.0.0.53", PlatformAllow),
            ("10.0.0.54", PlatformDeny),
            ("169.254.169.254", PlatformAllow),
            ("2001:db8:53::1", PlatformAllow),
            ("2001:db8:54::1", PlatformDeny),
            ("8.8.8.8", DenyOut),
        ],
    );
}

#[test]
fn domain_rules_send_the_web_to_the_proxy_and_nothing_else() {
    let network = r#"{"allowOut": ["example.com", "198.51.100.1"], "denyOut": ["0.0.0.0/0"]}"#;
    let udp = |port| datagram_from_sandbox(SERVER.v4, IpPayload::udp(4000, port, b""));
    let dns = IpAddr::from([8, 8, 8, 8]);
    let allowed = IpAddr::from([198, 51, 100, 1]);
    DatapathCase::with_network(network).assert_steps(&[
        sends("HTTP", syn_from_sandbox(SERVER.v4, 80), ProxyUnavailable),
        sends("HTTPS", syn_from_sandbox(SERVER.v4, 443), ProxyUnavailable),
        sends("HTTPS over IPv6", syn_from_sandbox(SERVER.v6, 443), ProxyUnavailable),
        sends(
            "HTTPS over IPv6 behind options",
            syn_from_sandbox(SERVER.v6, 443)
                .with_extension(ExtensionHeader::destination_options(1)),
            ProxyUnavailable,
        ),
        sends(
            "HTTPS to a mapped address",
            syn_from_sandbox("::ffff:203.0.113.10".parse::<IpAddr>().expect("an address"), 443),
            ProxyUnavailable,
        ),
        sends(
            "in the middle of a connection",
            datagram_from_sandbox(
                SERVER.v4,
                IpPayload::tcp(40_000, 443, TcpFlags::ACK).with_data(b"x"),
            ),
            ProxyUnavailable,
        ),
        sends("SSH", syn_from_sandbox(SERVER.v4, 22), DenyOut),
        sends("QUIC", udp(443), DenyOut),
        sends("HTTPS to an allowed address", syn_from_sandbox(allowed, 443), AllowOut),
        sends("HTTPS to the floor", syn_from_sandbox([10, 0, 0, 1], 443), PlatformDeny),
        sends(
            "the default name server",
            datagram_from_sandbox(dns, IpPayload::udp(4000, 53, b"")),
            DnsServer,
        ),
        sends("the same over TCP", syn_from_sandbox(dns, 53), DnsServer),
        sends("another name server", udp(53), DenyOut),
    ]);
}

#[test]
fn an_egress_proxy_takes_tcp_and_nothing_else() {
    let network =
        r#"{"egressProxy": {"address": "198.51.100.80:1080"}, "denyOut": ["203.0.113.9"]}"#;
    let floor = floor_lists(&["10.0.0.53"], &["10.0.0.0/8"]);
    DatapathCase::with_settings(network, DatapathSettings { floor, ..DatapathSettings::default() })
        .assert_steps(&[
            sends("TCP", syn_from_sandbox(SERVER.v4, 22), ProxyUnavailable),
            sends("UDP", udp_from_sandbox(SERVER.v4), NoRule),
            sends("denied TCP", syn_from_sandbox([203, 0, 113, 9], 22), DenyOut),
            sends(
                "TCP that the operator allows",
                syn_from_sandbox([10, 0, 0, 53], 22),
                PlatformAllow,
            ),
        ]);
}

#[test]
fn raw_protocols_are_judged_by_their_addresses() {
    const GRE: u8 = 47;
    const ESP: u8 = 50;
    const SCTP: u8 = 132;
    const IP_IN_IP: u8 = 4;
    const NO_NEXT_HEADER: u8 = 59;
    let network = r#"{"allowOut": ["203.0.113.10", "2001:db8:1::1"], "denyOut": ["0.0.0.0/0"]}"#;
    let mut steps = Vec::new();
    for protocol in [GRE, ESP, SCTP, IP_IN_IP, NO_NEXT_HEADER, 255] {
        let raw = |to: IpAddr| datagram_from_sandbox(to, IpPayload::raw(protocol, &[0xff; 12]));
        let what = format!("protocol {protocol}");
        steps.push(sends(&what, raw(SERVER.v4.into()), AllowOut));
        steps.push(sends(&what, raw(SERVER.v6.into()), AllowOut));
        steps.push(sends(&what, raw([203, 0, 113, 11].into()), DenyOut));
        steps.push(sends(&what, raw("2001:db8:1::2".parse().expect("an address")), DenyOut));
    }
    DatapathCase::with_network(network).assert_steps(&steps);
}
