//! Line 1 for fragments: first, later, tiny, overlapping.

use std::net::IpAddr;

use policy_common::reason::Reason::{
    AllowOut, DenyOut, Fragment, NoPolicy, NoRule, ProxyUnavailable, SpoofedIp,
};
use policy_testbed::packets::{
    ExtensionHeader, IpDatagram, IpPayload,
    test_hosts::{NEIGHBOR, OTHER_SERVER, SANDBOX, SERVER},
};

use super::datapath_case::{DatapathCase, DatapathSettings, datagram_from_sandbox, sends};

const DENY_SERVER: &str =
    r#"{"allowOut": ["203.0.113.10", "2001:db8:1::1"], "denyOut": ["0.0.0.0/0"]}"#;

fn large_udp(to: impl Into<IpAddr>) -> IpDatagram {
    datagram_from_sandbox(to, IpPayload::udp(40_000, 4000, &[0x82; 64]))
}

#[test]
fn a_later_fragment_follows_its_first() {
    DatapathCase::with_network(DENY_SERVER).assert_steps(&[
        sends("a later one before its first", large_udp(SERVER.v4).last_fragment(32), Fragment),
        sends("the first", large_udp(SERVER.v4).first_fragment(32), AllowOut),
        sends("the one between", large_udp(SERVER.v4).fragment(32, 40, true), AllowOut),
        sends("the last", large_udp(SERVER.v4).last_fragment(40), AllowOut),
        sends(
            "of another datagram",
            large_udp(SERVER.v4).with_identification(1).last_fragment(40),
            Fragment,
        ),
        sends("to another server", large_udp(OTHER_SERVER.v4).last_fragment(40), Fragment),
        sends(
            "of another protocol",
            datagram_from_sandbox(SERVER.v4, IpPayload::raw(47, &[0; 64])).last_fragment(40),
            Fragment,
        ),
        sends(
            "from another address",
            IpDatagram::new(NEIGHBOR.v4, SERVER.v4, IpPayload::udp(1, 2, &[0; 64]))
                .last_fragment(40),
            SpoofedIp,
        ),
        sends(
            "IPv6: a later one before its first",
            large_udp(SERVER.v6).last_fragment(32),
            Fragment,
        ),
        sends("IPv6: the first", large_udp(SERVER.v6).first_fragment(32), AllowOut),
        sends("IPv6: the last", large_udp(SERVER.v6).last_fragment(32), AllowOut),
        sends(
            "IPv6: of another datagram",
            large_udp(SERVER.v6).with_identification(0x10_2a2a).last_fragment(32),
            Fragment,
        ),
    ]);
}

#[test]
fn a_denied_first_opens_nothing() {
    DatapathCase::with_network(DENY_SERVER).assert_steps(&[
        sends("the first", large_udp(OTHER_SERVER.v4).first_fragment(32), DenyOut),
        sends("the last", large_udp(OTHER_SERVER.v4).last_fragment(32), Fragment),
        sends("IPv6: the first", large_udp(OTHER_SERVER.v6).first_fragment(32), DenyOut),
        sends("IPv6: the last", large_udp(OTHER_SERVER.v6).last_fragment(32), Fragment),
    ]);
}

#[test]
fn a_first_fragment_holds_the_transport_header() {
    let tcp =
        |to: IpAddr| datagram_from_sandbox(to, IpPayload::syn(40_000, 22).with_data(&[7; 40]));
    let long = || {
        datagram_from_sandbox(
            SERVER.v4,
            IpPayload::syn(1, 22).with_data(&[1; 28]).with_bytes_at(12, &[0xa0]),
        )
    };
    let ping =
        |to: IpAddr| datagram_from_sandbox(to, IpPayload::icmp_echo(to, false, 1, &[0x87; 40]));
    let (v4, v6) = (SERVER.v4.into(), SERVER.v6.into());
    DatapathCase::with_network("{}").assert_steps(&[
        sends("TCP's ports only", tcp(v4).first_fragment(8), Fragment),
        sends("TCP without its last word", tcp(v4).first_fragment(16), Fragment),
        sends("IPv6: TCP's ports only", tcp(v6).first_fragment(8), Fragment),
        sends("TCP whole", tcp(v4).first_fragment(24), NoRule),
        sends("IPv6: TCP whole", tcp(v6).first_fragment(24), NoRule),
        sends("TCP without all of its options", long().first_fragment(32), Fragment),
        sends("TCP with all of its options", long().first_fragment(40), NoRule),
        sends("nothing at all", tcp(v4).first_fragment(0), Fragment),
        sends("a later one that writes over TCP's flags", tcp(v4).fragment(8, 16, true), Fragment),
        sends(
            "a later one that writes over TCP's urgent pointer",
            tcp(v4).fragment(16, 40, false),
            Fragment,
        ),
        sends("a later one behind it", tcp(v4).fragment(24, 60, false), NoRule),
        sends(
            "IPv6: a later one that writes over TCP's flags",
            tcp(v6).fragment(8, 16, true),
            Fragment,
        ),
        sends("UDP whole", large_udp(SERVER.v4).first_fragment(8), NoRule),
        sends("ping", ping(v4).first_fragment(16), NoRule),
        sends("ping, the rest", ping(v4).last_fragment(16), NoRule),
        sends("IPv6: ping", ping(v6).first_fragment(16), NoRule),
        sends("IPv6: the rest, which looks like discovery", ping(v6).last_fragment(16), NoRule),
    ]);
}

#[test]
fn a_fragment_chain_in_ipv6_hides_nothing() {
    let hidden = |extension: ExtensionHeader| {
        datagram_from_sandbox(SERVER.v6, IpPayload::syn(1, 22)).with_extension(extension)
    };
    let options = IpPayload::raw(60, &[6, 0, 1, 4, 0, 0, 0, 0]);
    DatapathCase::with_network("{}").assert_steps(&[
        sends(
            "a whole one that says more follow",
            hidden(ExtensionHeader::fragment(0, true, 3)),
            NoRule,
        ),
        sends(
            "TCP in the second fragment, behind options",
            datagram_from_sandbox(SERVER.v6, options).first_fragment(8),
            Fragment,
        ),
        sends("a later one of no first", hidden(ExtensionHeader::fragment(8, false, 4)), Fragment),
        sends(
            "the last possible offset",
            hidden(ExtensionHeader::fragment(0xfff8, false, 4)),
            Fragment,
        ),
    ]);
}

/// A socket can only receive whole segments. Reassembly loses the assigned socket, so the datagram
/// would reach whatever listens on the host at its destination.
#[test]
fn what_is_for_the_proxy_must_not_be_fragmented() {
    const DOMAIN_NETWORK: &str =
        r#"{"allowOut": ["a.example", "203.0.113.10"], "denyOut": ["0.0.0.0/0"]}"#;
    const EGRESS_PROXY_NETWORK: &str = r#"{"egressProxy": {"address": "198.51.100.80:1080"}}"#;
    let web =
        |to: IpAddr| datagram_from_sandbox(to, IpPayload::syn(40_000, 443).with_data(&[7; 40]));
    let udp = |to: IpAddr| datagram_from_sandbox(to, IpPayload::udp(40_000, 443, &[7; 64]));
    for (network, other) in [(DOMAIN_NETWORK, DenyOut), (EGRESS_PROXY_NETWORK, NoRule)] {
        let mut steps = Vec::new();
        for to in [IpAddr::from(OTHER_SERVER.v4), OTHER_SERVER.v6.into()] {
            steps.extend([
                sends("whole", web(to), ProxyUnavailable),
                sends("its first fragment", web(to).first_fragment(32), Fragment),
                sends("a later one", web(to).fragment(32, 40, true), Fragment),
                sends("the last", web(to).last_fragment(40), Fragment),
                sends("the first of a datagram", udp(to).first_fragment(32), other),
            ]);
        }
        let atomic = ExtensionHeader::fragment(0, false, 3);
        steps.push(sends(
            "an atomic one",
            web(OTHER_SERVER.v6.into()).with_extension(atomic),
            Fragment,
        ));
        DatapathCase::with_network(network).assert_steps(&steps);
    }
    DatapathCase::with_network(DOMAIN_NETWORK).assert_steps(&[
        sends("to where line 6 leads", web(SERVER.v4.into()).first_fragment(32), AllowOut),
        sends("and its last", web(SERVER.v4.into()).last_fragment(40), AllowOut),
    ]);
}

#[test]
fn a_tightened_policy_applies_to_the_next_fragment() {
    let mut stage = DatapathCase::with_network(DENY_SERVER);
    stage.assert_steps(&[
        sends("the first", large_udp(SERVER.v4).first_fragment(32), AllowOut),
        sends("the next", large_udp(SERVER.v4).fragment(32, 40, true), AllowOut),
    ]);
    stage.publish(r#"{"denyOut": ["0.0.0.0/0"]}"#);
    stage.assert_steps(&[
        sends("the next, tightened", large_udp(SERVER.v4).fragment(40, 48, true), Fragment),
        sends("a new first, tightened", large_udp(SERVER.v4).first_fragment(32), DenyOut),
        sends("and its next", large_udp(SERVER.v4).fragment(48, 56, true), Fragment),
    ]);
}

#[test]
fn without_a_policy_no_fragment_passes() {
    DatapathCase::without_policy(DatapathSettings::default()).assert_steps(&[
        sends("a first", large_udp(SERVER.v4).first_fragment(32), NoPolicy),
        sends("a later one", large_udp(SERVER.v4).last_fragment(32), NoPolicy),
        sends(
            "a spoofed one",
            IpDatagram::new(NEIGHBOR.v6, SERVER.v6, IpPayload::udp(1, 2, &[0; 64]))
                .last_fragment(32),
            SpoofedIp,
        ),
        sends(
            "its own, over IPv6",
            IpDatagram::new(SANDBOX.v6, SERVER.v6, IpPayload::udp(1, 2, &[0; 64]))
                .first_fragment(8),
            NoPolicy,
        ),
    ]);
}
