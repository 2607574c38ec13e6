//! Line 1 for fragments: first, later, tiny, overlapping.

use std::net::IpAddr;

use policy_common::reason::Reason::{
    AllowOut, DenyOut, Fragment, NoPolicy, NoRule, ProxyUnavailable, SpoofedIp,
};
use policy_tests::packet::{
    Datagram, Extension, Payload,
    cast::{NEIGHBOUR, OTHER, SANDBOX, SERVER},
};

use super::stage::{Setting, Stage, from_sandbox, out};

const ALL_BUT_SERVER: &str =
    r#"{"allowOut": ["203.0.113.10", "2001:db8:1::1"], "denyOut": ["0.0.0.0/0"]}"#;

fn big_udp(to: impl Into<IpAddr>) -> Datagram {
    from_sandbox(to, Payload::udp(40_000, 4000, &[0x82; 64]))
}

#[test]
fn a_later_fragment_follows_its_first() {
    Stage::with(ALL_BUT_SERVER).judge(&[
        out("a later one before its first", big_udp(SERVER.v4).last(32), Fragment),
        out("the first", big_udp(SERVER.v4).first(32), AllowOut),
        out("the one between", big_udp(SERVER.v4).part(32, 40, true), AllowOut),
        out("the last", big_udp(SERVER.v4).last(40), AllowOut),
        out("of another datagram", big_udp(SERVER.v4).identified(1).last(40), Fragment),
        out("to another server", big_udp(OTHER.v4).last(40), Fragment),
        out(
            "of another protocol",
            from_sandbox(SERVER.v4, Payload::raw(47, &[0; 64])).last(40),
            Fragment,
        ),
        out(
            "from another address",
            Datagram::new(NEIGHBOUR.v4, SERVER.v4, Payload::udp(1, 2, &[0; 64])).last(40),
            SpoofedIp,
        ),
        out("IPv6: a later one before its first", big_udp(SERVER.v6).last(32), Fragment),
        out("IPv6: the first", big_udp(SERVER.v6).first(32), AllowOut),
        out("IPv6: the last", big_udp(SERVER.v6).last(32), AllowOut),
        out(
            "IPv6: of another datagram",
            big_udp(SERVER.v6).identified(0x10_2a2a).last(32),
            Fragment,
        ),
    ]);
}

#[test]
fn a_denied_first_opens_nothing() {
    Stage::with(ALL_BUT_SERVER).judge(&[
        out("the first", big_udp(OTHER.v4).first(32), DenyOut),
        out("the last", big_udp(OTHER.v4).last(32), Fragment),
        out("IPv6: the first", big_udp(OTHER.v6).first(32), DenyOut),
        out("IPv6: the last", big_udp(OTHER.v6).last(32), Fragment),
    ]);
}

#[test]
fn a_first_fragment_holds_the_transport_header() {
    let tcp = |to: IpAddr| from_sandbox(to, Payload::syn(40_000, 22).data(&[7; 40]));
    let long = || from_sandbox(SERVER.v4, Payload::syn(1, 22).data(&[1; 28]).with(12, &[0xa0]));
    let ping = |to: IpAddr| from_sandbox(to, Payload::echo(to, false, 1, &[0x87; 40]));
    let (v4, v6) = (SERVER.v4.into(), SERVER.v6.into());
    Stage::with("{}").judge(&[
        out("TCP's ports only", tcp(v4).first(8), Fragment),
        out("TCP without its last word", tcp(v4).first(16), Fragment),
        out("IPv6: TCP's ports only", tcp(v6).first(8), Fragment),
        out("TCP whole", tcp(v4).first(24), NoRule),
        out("IPv6: TCP whole", tcp(v6).first(24), NoRule),
        out("TCP without all of its options", long().first(32), Fragment),
        out("TCP with all of its options", long().first(40), NoRule),
        out("nothing at all", tcp(v4).first(0), Fragment),
        out("a later one that writes over TCP's flags", tcp(v4).part(8, 16, true), Fragment),
        out(
            "a later one that writes over TCP's urgent pointer",
            tcp(v4).part(16, 40, false),
            Fragment,
        ),
        out("a later one behind it", tcp(v4).part(24, 60, false), NoRule),
        out("IPv6: a later one that writes over TCP's flags", tcp(v6).part(8, 16, true), Fragment),
        out("UDP whole", big_udp(SERVER.v4).first(8), NoRule),
        out("ping", ping(v4).first(16), NoRule),
        out("ping, the rest", ping(v4).last(16), NoRule),
        out("IPv6: ping", ping(v6).first(16), NoRule),
        out("IPv6: the rest, which looks like discovery", ping(v6).last(16), NoRule),
    ]);
}

#[test]
fn a_fragment_chain_in_ipv6_hides_nothing() {
    let hidden =
        |extension: Extension| from_sandbox(SERVER.v6, Payload::syn(1, 22)).behind(extension);
    let options = Payload::raw(60, &[6, 0, 1, 4, 0, 0, 0, 0]);
    Stage::with("{}").judge(&[
        out("a whole one that says more follow", hidden(Extension::fragment(0, true, 3)), NoRule),
        out(
            "TCP in the second fragment, behind options",
            from_sandbox(SERVER.v6, options).first(8),
            Fragment,
        ),
        out("a later one of no first", hidden(Extension::fragment(8, false, 4)), Fragment),
        out("the last possible offset", hidden(Extension::fragment(0xfff8, false, 4)), Fragment),
    ]);
}

/// A socket takes segments. What reassembly makes of fragments has lost it, and would come to
/// whatever the host has at its destination.
#[test]
fn what_is_for_the_proxy_comes_in_one_piece() {
    const NAMES: &str = r#"{"allowOut": ["a.example", "203.0.113.10"], "denyOut": ["0.0.0.0/0"]}"#;
    const TUNNEL: &str = r#"{"egressProxy": {"address": "198.51.100.80:1080"}}"#;
    let web = |to: IpAddr| from_sandbox(to, Payload::syn(40_000, 443).data(&[7; 40]));
    let udp = |to: IpAddr| from_sandbox(to, Payload::udp(40_000, 443, &[7; 64]));
    for (network, other) in [(NAMES, DenyOut), (TUNNEL, NoRule)] {
        let mut steps = Vec::new();
        for to in [IpAddr::from(OTHER.v4), OTHER.v6.into()] {
            steps.extend([
                out("whole", web(to), ProxyUnavailable),
                out("its first fragment", web(to).first(32), Fragment),
                out("a later one", web(to).part(32, 40, true), Fragment),
                out("the last", web(to).last(40), Fragment),
                out("the first of a datagram", udp(to).first(32), other),
            ]);
        }
        let atomic = Extension::fragment(0, false, 3);
        steps.push(out("an atomic one", web(OTHER.v6.into()).behind(atomic), Fragment));
        Stage::with(network).judge(&steps);
    }
    Stage::with(NAMES).judge(&[
        out("to where line 6 leads", web(SERVER.v4.into()).first(32), AllowOut),
        out("and its last", web(SERVER.v4.into()).last(40), AllowOut),
    ]);
}

#[test]
fn a_tightened_policy_bites_on_the_next_fragment() {
    let mut stage = Stage::with(ALL_BUT_SERVER);
    stage.judge(&[
        out("the first", big_udp(SERVER.v4).first(32), AllowOut),
        out("the next", big_udp(SERVER.v4).part(32, 40, true), AllowOut),
    ]);
    stage.publish(r#"{"denyOut": ["0.0.0.0/0"]}"#);
    stage.judge(&[
        out("the next, tightened", big_udp(SERVER.v4).part(40, 48, true), Fragment),
        out("a new first, tightened", big_udp(SERVER.v4).first(32), DenyOut),
        out("and its next", big_udp(SERVER.v4).part(48, 56, true), Fragment),
    ]);
}

#[test]
fn without_a_policy_no_fragment_passes() {
    Stage::without_policy(Setting::default()).judge(&[
        out("a first", big_udp(SERVER.v4).first(32), NoPolicy),
        out("a later one", big_udp(SERVER.v4).last(32), NoPolicy),
        out(
            "a spoofed one",
            Datagram::new(NEIGHBOUR.v6, SERVER.v6, Payload::udp(1, 2, &[0; 64])).last(32),
            SpoofedIp,
        ),
        out(
            "its own, over IPv6",
            Datagram::new(SANDBOX.v6, SERVER.v6, Payload::udp(1, 2, &[0; 64])).first(8),
            NoPolicy,
        ),
    ]);
}
