//! Line 1: frames that are malformed, spoofed, or of a kind that no rule can judge.

use policy_common::reason::Reason::{
    ExtensionHeaders, IpOptions, Malformed, NoRule, SpoofedIp, SpoofedMac, UnknownEthertype, Vlan,
};
use policy_tests::packet::{
    Datagram, ETHERNET, Extension, Payload,
    cast::{CLIENT, GATEWAY, NEIGHBOUR, SANDBOX, SANDBOX_LINK_LOCAL, SANDBOX_TOO, SERVER},
};

use super::stage::{Setting, Stage, from_sandbox, out, syn_to, udp_to};

/// Everything that the floor leaves is allowed, so that only line 1 can drop.
const OPEN: &str = "{}";

const IP: usize = ETHERNET;
const TCP_V4: usize = ETHERNET + 20;
const TCP_V6: usize = ETHERNET + 40;

#[test]
fn honest_frames_pass() {
    Stage::with(OPEN).judge(&[
        out("UDP", udp_to(SERVER.v4), NoRule),
        out("UDP over IPv6", udp_to(SERVER.v6), NoRule),
        out("TCP", syn_to(SERVER.v4, 22), NoRule),
        out("TCP over IPv6", syn_to(SERVER.v6, 22), NoRule),
        out(
            "from its other address",
            Datagram::new(SANDBOX_TOO, SERVER.v4, Payload::syn(1, 2)),
            NoRule,
        ),
        out(
            "ping",
            from_sandbox(SERVER.v4, Payload::echo(SERVER.v4.into(), false, 7, b"ping")),
            NoRule,
        ),
        out(
            "ping over IPv6",
            from_sandbox(SERVER.v6, Payload::echo(SERVER.v6.into(), false, 7, b"ping")),
            NoRule,
        ),
        out(
            "padded to the least length of Ethernet",
            udp_to(SERVER.v4).frame().padded(&[0; 20]),
            NoRule,
        ),
        out("padded, over IPv6", udp_to(SERVER.v6).frame().padded(&[0xff; 20]), NoRule),
        out(
            "to a neighbour's MAC: it is judged by its IP",
            udp_to(SERVER.v4).frame().to_mac(NEIGHBOUR.mac),
            NoRule,
        ),
    ]);
}

#[test]
fn spoofed_sources_are_dropped() {
    let from = |source: std::net::IpAddr, to: std::net::IpAddr| {
        Datagram::new(source, to, Payload::syn(1, 22))
    };
    Stage::with(OPEN).judge(&[
        out("a neighbour's MAC", udp_to(SERVER.v4).frame().from_mac(NEIGHBOUR.mac), SpoofedMac),
        out("the gateway's MAC", udp_to(SERVER.v6).frame().from_mac(GATEWAY.mac), SpoofedMac),
        out("no MAC", udp_to(SERVER.v4).frame().from_mac([0; 6]), SpoofedMac),
        out(
            "its MAC but for the last bit",
            udp_to(SERVER.v4).frame().from_mac([2, 0xfc, 0, 0, 0, 4]),
            SpoofedMac,
        ),
        out(
            "its MAC but for the first byte",
            udp_to(SERVER.v4).frame().from_mac([0, 0xfc, 0, 0, 0, 5]),
            SpoofedMac,
        ),
        out("a neighbour's address", from(NEIGHBOUR.v4.into(), SERVER.v4.into()), SpoofedIp),
        out("a neighbour's IPv6 address", from(NEIGHBOUR.v6.into(), SERVER.v6.into()), SpoofedIp),
        out("the gateway's address", from(GATEWAY.v4.into(), SERVER.v4.into()), SpoofedIp),
        out("somebody's address", from(CLIENT.v4.into(), SERVER.v4.into()), SpoofedIp),
        out("no address", from([0, 0, 0, 0].into(), SERVER.v4.into()), SpoofedIp),
        out("no IPv6 address", from([0; 16].into(), SERVER.v6.into()), SpoofedIp),
        out("loopback", from([127, 0, 0, 1].into(), SERVER.v4.into()), SpoofedIp),
        out("broadcast", from([255; 4].into(), SERVER.v4.into()), SpoofedIp),
        out(
            "its link-local address, for more than discovery",
            from(SANDBOX_LINK_LOCAL.into(), SERVER.v6.into()),
            SpoofedIp,
        ),
        out(
            "its IPv4 address, mapped",
            from(SANDBOX.v4.to_ipv6_mapped().into(), SERVER.v6.into()),
            SpoofedIp,
        ),
        out("from a server to itself", from(SERVER.v4.into(), SANDBOX.v4.into()), SpoofedIp),
    ]);
}

#[test]
fn without_a_known_mac_only_addresses_count() {
    let setting = Setting { mac_known: false, ..Setting::default() };
    Stage::set(OPEN, setting).judge(&[
        out("any MAC", udp_to(SERVER.v4).frame().from_mac(NEIGHBOUR.mac), NoRule),
        out(
            "a neighbour's address",
            Datagram::new(NEIGHBOUR.v4, SERVER.v4, Payload::syn(1, 2)),
            SpoofedIp,
        ),
    ]);
}

#[test]
fn tags_and_unknown_ethertypes_are_dropped() {
    let frame = || udp_to(SERVER.v4).frame();
    let mut steps = vec![
        out("a VLAN tag", frame().tagged(0x8100, 5), Vlan),
        out("a priority tag", frame().tagged(0x8100, 0), Vlan),
        out("a provider's tag", frame().tagged(0x88a8, 5), Vlan),
        out("two tags", frame().tagged(0x8100, 5).tagged(0x88a8, 6), Vlan),
        out("two equal tags", frame().tagged(0x8100, 5).tagged(0x8100, 6), Vlan),
        out("the older double tag", frame().tagged(0x9100, 5), Vlan),
        out("a tag from a spoofed MAC", frame().from_mac(GATEWAY.mac).tagged(0x8100, 5), Vlan),
    ];
    // LLC, RARP, AppleTalk, MPLS, PPPoE, EAPOL, LLDP, MACsec, PTP, loopback, an invalid one.
    for ethertype in [
        0x0004_u16, 0x8035, 0x809b, 0x8847, 0x8863, 0x8864, 0x888e, 0x88cc, 0x88e5, 0x88f7, 0x9000,
        0xffff, 0,
    ] {
        let what = format!("ethertype {ethertype:04x}");
        steps.push(out(&what, frame().with(12, &ethertype.to_be_bytes()), UnknownEthertype));
    }
    steps.push(out(
        "IPv6 that says it is IPv4",
        udp_to(SERVER.v6).frame().with(12, &[8, 0]),
        Malformed,
    ));
    let long = from_sandbox(SERVER.v4, Payload::udp(1, 2, &[0; 40])).frame();
    steps.push(out("IPv4 that says it is IPv6", long.with(12, &[0x86, 0xdd]), Malformed));
    Stage::with(OPEN).judge(&steps);
}

#[test]
fn bad_ipv4_headers_are_dropped() {
    let frame = || syn_to(SERVER.v4, 22).frame();
    let source_route = [0x83, 7, 4, 203, 0, 113, 10, 0];
    let options = |bytes: &[u8]| syn_to(SERVER.v4, 22).options(bytes);
    let mut steps = vec![
        out("no version", frame().with(IP, &[0x05]), Malformed),
        out("version 6", frame().with(IP, &[0x65]), Malformed),
        out("version 15", frame().with(IP, &[0xf5]), Malformed),
        out("longer than the frame", frame().with(IP + 2, &[0, 41]), Malformed),
        out("far longer than the frame", frame().with(IP + 2, &[0xff, 0xff]), Malformed),
        out("shorter than its header", frame().with(IP + 2, &[0, 19]), Malformed),
        out("of no length", frame().with(IP + 2, &[0, 0]), Malformed),
        out("too short for TCP", frame().with(IP + 2, &[0, 39]), Malformed),
        out("a loose source route", options(&source_route), IpOptions),
        out("a record route", options(&[7, 7, 4, 0, 0, 0, 0, 0]), IpOptions),
        out("only no-operations", options(&[1, 1, 1, 1]), IpOptions),
        out("options up to the end", options(&[1; 40]), IpOptions),
        out("options that are TCP's header", frame().with(IP, &[0x46]), IpOptions),
    ];
    for words in 0..5 {
        let what = format!("a header of {words} words");
        steps.push(out(&what, frame().with(IP, &[0x40 | words]), Malformed));
    }
    Stage::with(OPEN).judge(&steps);
}

#[test]
fn bad_ipv6_headers_are_dropped() {
    let frame = || syn_to(SERVER.v6, 22).frame();
    Stage::with(OPEN).judge(&[
        out("version 4", frame().with(IP, &[0x40]), Malformed),
        out("version 7", frame().with(IP, &[0x70]), Malformed),
        out("longer than the frame", frame().with(IP + 4, &[0, 21]), Malformed),
        out("too short for TCP", frame().with(IP + 4, &[0, 19]), Malformed),
        out("of no length", frame().with(IP + 4, &[0, 0]), Malformed),
        out("a traffic class and a flow label", frame().with(IP, &[0x6f, 0xff, 0xff]), NoRule),
    ]);
}

#[test]
fn bad_transport_headers_are_dropped() {
    let tcp = || syn_to(SERVER.v4, 22).frame();
    let tcp6 = || syn_to(SERVER.v6, 22).frame();
    let udp = || udp_to(SERVER.v4).frame();
    let udp6 = || udp_to(SERVER.v6).frame();
    let options =
        || from_sandbox(SERVER.v4, Payload::syn(1, 22).data(&[1; 12]).with(12, &[0x80])).frame();
    let short = |protocol| from_sandbox(SERVER.v4, Payload::raw(protocol, &[8; 7]));
    Stage::with(OPEN).judge(&[
        out("a TCP header of four words", tcp().with(TCP_V4 + 12, &[0x40]), Malformed),
        out("a TCP header of no words", tcp6().with(TCP_V6 + 12, &[0x00]), Malformed),
        out("a TCP header longer than the datagram", tcp().with(TCP_V4 + 12, &[0x60]), Malformed),
        out("the same over IPv6", tcp6().with(TCP_V6 + 12, &[0xf0]), Malformed),
        out("TCP options", options(), NoRule),
        out(
            "TCP options longer than the datagram",
            options().with(TCP_V4 + 12, &[0x90]),
            Malformed,
        ),
        out("a UDP length longer than the datagram", udp().with(TCP_V4 + 4, &[0, 14]), Malformed),
        out("the same over IPv6", udp6().with(TCP_V6 + 4, &[0xff, 0xff]), Malformed),
        out("a UDP length shorter than its header", udp().with(TCP_V4 + 4, &[0, 7]), Malformed),
        out("a UDP length shorter than the datagram", udp().with(TCP_V4 + 4, &[0, 8]), NoRule),
        out("UDP of seven bytes", short(17), Malformed),
        out("ICMP of seven bytes", short(1), Malformed),
        out("TCP of seven bytes", short(6), Malformed),
        out("TCP of no bytes", from_sandbox(SERVER.v6, Payload::raw(6, &[])), Malformed),
    ]);
}

#[test]
fn extension_headers_are_walked_or_dropped() {
    let tcp = || syn_to(SERVER.v6, 22);
    let options = || Extension::destination_options(1);
    let many = |count: usize| (0..count).fold(tcp(), |datagram, _| datagram.behind(options()));
    let atomic = || Extension::fragment(0, false, 7);
    Stage::with(OPEN).judge(&[
        out("hop-by-hop options", tcp().behind(Extension::hop_by_hop()), NoRule),
        out("destination options", tcp().behind(options()), NoRule),
        out("long destination options", tcp().behind(Extension::destination_options(30)), NoRule),
        out("an authentication header", tcp().behind(Extension::authentication()), NoRule),
        out("an atomic fragment", tcp().behind(atomic()), NoRule),
        out(
            "all kinds",
            tcp()
                .behind(Extension::hop_by_hop())
                .behind(options())
                .behind(atomic())
                .behind(Extension::authentication())
                .behind(options()),
            NoRule,
        ),
        out("six headers", many(6), NoRule),
        out("seven headers", many(7), ExtensionHeaders),
        out("a routing header", tcp().behind(Extension::routing()), IpOptions),
        out(
            "a routing header behind others",
            tcp().behind(Extension::hop_by_hop()).behind(Extension::routing()),
            IpOptions,
        ),
        out(
            "two fragment headers",
            tcp().behind(Extension::fragment(0, true, 7)).behind(Extension::fragment(0, true, 8)),
            ExtensionHeaders,
        ),
        out(
            "two atomic fragment headers",
            tcp().behind(atomic()).behind(atomic()),
            ExtensionHeaders,
        ),
        out(
            "an atomic one and a later one",
            tcp().behind(atomic()).behind(Extension::fragment(64, false, 8)),
            ExtensionHeaders,
        ),
        out("options longer than the datagram", tcp().behind(options().lying(3)), ExtensionHeaders),
        out("options as long as can be said", tcp().behind(options().lying(255)), ExtensionHeaders),
        out(
            "an odd authentication header",
            tcp().behind(Extension::authentication().lying(3)),
            ExtensionHeaders,
        ),
        out(
            "a chain that ends in the air",
            from_sandbox(SERVER.v6, Payload::raw(60, &[6, 0, 1, 4])),
            ExtensionHeaders,
        ),
        out(
            "a chain with nothing behind",
            from_sandbox(SERVER.v6, Payload::raw(0, &[])),
            ExtensionHeaders,
        ),
        out(
            "TCP hidden in padding",
            from_sandbox(SERVER.v6, Payload::raw(60, &[6, 0, 1, 4, 0, 0, 0, 0]))
                .frame()
                .padded(&Payload::syn(1, 22).bytes),
            Malformed,
        ),
    ]);
}
