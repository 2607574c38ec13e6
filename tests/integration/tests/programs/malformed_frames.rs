//! Line 1: frames that are malformed, spoofed, or of a kind that no rule covers.

use policy_common::reason::Reason::{
    ExtensionHeaders, IpOptions, Malformed, NoRule, SpoofedIp, SpoofedMac, UnknownEthertype, Vlan,
};
use policy_testbed::packets::{
    ETHERNET_HEADER_LEN, ExtensionHeader, IpDatagram, IpPayload,
    test_hosts::{
        CLIENT, GATEWAY, NEIGHBOR, SANDBOX, SANDBOX_LINK_LOCAL, SANDBOX_SECOND_V4, SERVER,
    },
};

use super::datapath_case::{
    DatapathCase, DatapathSettings, datagram_from_sandbox, sends, syn_from_sandbox,
    udp_from_sandbox,
};

/// Everything outside the floor is allowed, so that only line 1 drops.
const ALLOW_ALL: &str = "{}";

const IP_OFFSET: usize = ETHERNET_HEADER_LEN;
const TCP_OFFSET_V4: usize = ETHERNET_HEADER_LEN + 20;
const TCP_OFFSET_V6: usize = ETHERNET_HEADER_LEN + 40;

#[test]
fn genuine_frames_pass() {
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&[
        sends("UDP", udp_from_sandbox(SERVER.v4), NoRule),
        sends("UDP over IPv6", udp_from_sandbox(SERVER.v6), NoRule),
        sends("TCP", syn_from_sandbox(SERVER.v4, 22), NoRule),
        sends("TCP over IPv6", syn_from_sandbox(SERVER.v6, 22), NoRule),
        sends(
            "from its other address",
            IpDatagram::new(SANDBOX_SECOND_V4, SERVER.v4, IpPayload::syn(1, 2)),
            NoRule,
        ),
        sends(
            "ping",
            datagram_from_sandbox(
                SERVER.v4,
                IpPayload::icmp_echo(SERVER.v4.into(), false, 7, b"ping"),
            ),
            NoRule,
        ),
        sends(
            "ping over IPv6",
            datagram_from_sandbox(
                SERVER.v6,
                IpPayload::icmp_echo(SERVER.v6.into(), false, 7, b"ping"),
            ),
            NoRule,
        ),
        sends(
            "padded to the least length of Ethernet",
            udp_from_sandbox(SERVER.v4).to_frame().padded(&[0; 20]),
            NoRule,
        ),
        sends(
            "padded, over IPv6",
            udp_from_sandbox(SERVER.v6).to_frame().padded(&[0xff; 20]),
            NoRule,
        ),
        sends(
            "to a neighbour's MAC: it is judged by its IP",
            udp_from_sandbox(SERVER.v4).to_frame().with_destination(NEIGHBOR.mac),
            NoRule,
        ),
    ]);
}

#[test]
fn spoofed_sources_are_dropped() {
    let from = |source: std::net::IpAddr, to: std::net::IpAddr| {
        IpDatagram::new(source, to, IpPayload::syn(1, 22))
    };
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&[
        sends(
            "a neighbour's MAC",
            udp_from_sandbox(SERVER.v4).to_frame().with_source(NEIGHBOR.mac),
            SpoofedMac,
        ),
        sends(
            "the gateway's MAC",
            udp_from_sandbox(SERVER.v6).to_frame().with_source(GATEWAY.mac),
            SpoofedMac,
        ),
        sends("no MAC", udp_from_sandbox(SERVER.v4).to_frame().with_source([0; 6]), SpoofedMac),
        sends(
            "its MAC but for the last bit",
            udp_from_sandbox(SERVER.v4).to_frame().with_source([2, 0xfc, 0, 0, 0, 4]),
            SpoofedMac,
        ),
        sends(
            "its MAC but for the first byte",
            udp_from_sandbox(SERVER.v4).to_frame().with_source([0, 0xfc, 0, 0, 0, 5]),
            SpoofedMac,
        ),
        sends("a neighbour's address", from(NEIGHBOR.v4.into(), SERVER.v4.into()), SpoofedIp),
        sends("a neighbour's IPv6 address", from(NEIGHBOR.v6.into(), SERVER.v6.into()), SpoofedIp),
        sends("the gateway's address", from(GATEWAY.v4.into(), SERVER.v4.into()), SpoofedIp),
        sends("somebody's address", from(CLIENT.v4.into(), SERVER.v4.into()), SpoofedIp),
        sends("no address", from([0, 0, 0, 0].into(), SERVER.v4.into()), SpoofedIp),
        sends("no IPv6 address", from([0; 16].into(), SERVER.v6.into()), SpoofedIp),
        sends("loopback", from([127, 0, 0, 1].into(), SERVER.v4.into()), SpoofedIp),
        sends("broadcast", from([255; 4].into(), SERVER.v4.into()), SpoofedIp),
        sends(
            "its link-local address, for more than discovery",
            from(SANDBOX_LINK_LOCAL.into(), SERVER.v6.into()),
            SpoofedIp,
        ),
        sends(
            "its IPv4 address, mapped",
            from(SANDBOX.v4.to_ipv6_mapped().into(), SERVER.v6.into()),
            SpoofedIp,
        ),
        sends("from a server to itself", from(SERVER.v4.into(), SANDBOX.v4.into()), SpoofedIp),
    ]);
}

#[test]
fn without_a_known_mac_only_addresses_count() {
    let setting = DatapathSettings { mac_known: false, ..DatapathSettings::default() };
    DatapathCase::with_settings(ALLOW_ALL, setting).assert_steps(&[
        sends("any MAC", udp_from_sandbox(SERVER.v4).to_frame().with_source(NEIGHBOR.mac), NoRule),
        sends(
            "a neighbour's address",
            IpDatagram::new(NEIGHBOR.v4, SERVER.v4, IpPayload::syn(1, 2)),
            SpoofedIp,
        ),
    ]);
}

#[test]
fn tags_and_unknown_ethertypes_are_dropped() {
    let frame = || udp_from_sandbox(SERVER.v4).to_frame();
    let mut steps = vec![
        sends("a VLAN tag", frame().with_vlan_tag(0x8100, 5), Vlan),
        sends("a priority tag", frame().with_vlan_tag(0x8100, 0), Vlan),
        sends("a provider's tag", frame().with_vlan_tag(0x88a8, 5), Vlan),
        sends("two tags", frame().with_vlan_tag(0x8100, 5).with_vlan_tag(0x88a8, 6), Vlan),
        sends("two equal tags", frame().with_vlan_tag(0x8100, 5).with_vlan_tag(0x8100, 6), Vlan),
        sends("the older double tag", frame().with_vlan_tag(0x9100, 5), Vlan),
        sends(
            "a tag from a spoofed MAC",
            frame().with_source(GATEWAY.mac).with_vlan_tag(0x8100, 5),
            Vlan,
        ),
    ];
    // LLC, RARP, AppleTalk, MPLS, PPPoE, EAPOL, LLDP, MACsec, PTP, loopback, an invalid EtherType.
    for ethertype in [
        0x0004_u16, 0x8035, 0x809b, 0x8847, 0x8863, 0x8864, 0x888e, 0x88cc, 0x88e5, 0x88f7, 0x9000,
        0xffff, 0,
    ] {
        let what = format!("ethertype {ethertype:04x}");
        steps.push(sends(
            &what,
            frame().with_bytes_at(12, &ethertype.to_be_bytes()),
            UnknownEthertype,
        ));
    }
    steps.push(sends(
        "IPv6 that says it is IPv4",
        udp_from_sandbox(SERVER.v6).to_frame().with_bytes_at(12, &[8, 0]),
        Malformed,
    ));
    let long = datagram_from_sandbox(SERVER.v4, IpPayload::udp(1, 2, &[0; 40])).to_frame();
    steps.push(sends(
        "IPv4 that says it is IPv6",
        long.with_bytes_at(12, &[0x86, 0xdd]),
        Malformed,
    ));
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&steps);
}

#[test]
fn bad_ipv4_headers_are_dropped() {
    let frame = || syn_from_sandbox(SERVER.v4, 22).to_frame();
    let source_route = [0x83, 7, 4, 203, 0, 113, 10, 0];
    let options = |bytes: &[u8]| syn_from_sandbox(SERVER.v4, 22).with_options(bytes);
    let mut steps = vec![
        sends("no version", frame().with_bytes_at(IP_OFFSET, &[0x05]), Malformed),
        sends("version 6", frame().with_bytes_at(IP_OFFSET, &[0x65]), Malformed),
        sends("version 15", frame().with_bytes_at(IP_OFFSET, &[0xf5]), Malformed),
        sends("longer than the frame", frame().with_bytes_at(IP_OFFSET + 2, &[0, 41]), Malformed),
        sends(
            "far longer than the frame",
            frame().with_bytes_at(IP_OFFSET + 2, &[0xff, 0xff]),
            Malformed,
        ),
        sends("shorter than its header", frame().with_bytes_at(IP_OFFSET + 2, &[0, 19]), Malformed),
        sends("of no length", frame().with_bytes_at(IP_OFFSET + 2, &[0, 0]), Malformed),
        sends("too short for TCP", frame().with_bytes_at(IP_OFFSET + 2, &[0, 39]), Malformed),
        sends("a loose source route", options(&source_route), IpOptions),
        sends("a record route", options(&[7, 7, 4, 0, 0, 0, 0, 0]), IpOptions),
        sends("only no-operations", options(&[1, 1, 1, 1]), IpOptions),
        sends("options up to the end", options(&[1; 40]), IpOptions),
        sends(
            "options that are TCP's header",
            frame().with_bytes_at(IP_OFFSET, &[0x46]),
            IpOptions,
        ),
    ];
    for words in 0..5 {
        let what = format!("a header of {words} words");
        steps.push(sends(&what, frame().with_bytes_at(IP_OFFSET, &[0x40 | words]), Malformed));
    }
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&steps);
}

#[test]
fn bad_ipv6_headers_are_dropped() {
    let frame = || syn_from_sandbox(SERVER.v6, 22).to_frame();
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&[
        sends("version 4", frame().with_bytes_at(IP_OFFSET, &[0x40]), Malformed),
        sends("version 7", frame().with_bytes_at(IP_OFFSET, &[0x70]), Malformed),
        sends("longer than the frame", frame().with_bytes_at(IP_OFFSET + 4, &[0, 21]), Malformed),
        sends("too short for TCP", frame().with_bytes_at(IP_OFFSET + 4, &[0, 19]), Malformed),
        sends("of no length", frame().with_bytes_at(IP_OFFSET + 4, &[0, 0]), Malformed),
        sends(
            "a traffic class and a flow label",
            frame().with_bytes_at(IP_OFFSET, &[0x6f, 0xff, 0xff]),
            NoRule,
        ),
    ]);
}

#[test]
fn bad_transport_headers_are_dropped() {
    let tcp = || syn_from_sandbox(SERVER.v4, 22).to_frame();
    let tcp6 = || syn_from_sandbox(SERVER.v6, 22).to_frame();
    let udp = || udp_from_sandbox(SERVER.v4).to_frame();
    let udp6 = || udp_from_sandbox(SERVER.v6).to_frame();
    let options = || {
        datagram_from_sandbox(
            SERVER.v4,
            IpPayload::syn(1, 22).with_data(&[1; 12]).with_bytes_at(12, &[0x80]),
        )
        .to_frame()
    };
    let short = |protocol| datagram_from_sandbox(SERVER.v4, IpPayload::raw(protocol, &[8; 7]));
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&[
        sends(
            "a TCP header of four words",
            tcp().with_bytes_at(TCP_OFFSET_V4 + 12, &[0x40]),
            Malformed,
        ),
        sends(
            "a TCP header of no words",
            tcp6().with_bytes_at(TCP_OFFSET_V6 + 12, &[0x00]),
            Malformed,
        ),
        sends(
            "a TCP header longer than the datagram",
            tcp().with_bytes_at(TCP_OFFSET_V4 + 12, &[0x60]),
            Malformed,
        ),
        sends("the same over IPv6", tcp6().with_bytes_at(TCP_OFFSET_V6 + 12, &[0xf0]), Malformed),
        sends("TCP options", options(), NoRule),
        sends(
            "TCP options longer than the datagram",
            options().with_bytes_at(TCP_OFFSET_V4 + 12, &[0x90]),
            Malformed,
        ),
        sends(
            "a UDP length longer than the datagram",
            udp().with_bytes_at(TCP_OFFSET_V4 + 4, &[0, 14]),
            Malformed,
        ),
        sends(
            "the same over IPv6",
            udp6().with_bytes_at(TCP_OFFSET_V6 + 4, &[0xff, 0xff]),
            Malformed,
        ),
        sends(
            "a UDP length shorter than its header",
            udp().with_bytes_at(TCP_OFFSET_V4 + 4, &[0, 7]),
            Malformed,
        ),
        sends(
            "a UDP length shorter than the datagram",
            udp().with_bytes_at(TCP_OFFSET_V4 + 4, &[0, 8]),
            NoRule,
        ),
        sends("UDP of seven bytes", short(17), Malformed),
        sends("ICMP of seven bytes", short(1), Malformed),
        sends("TCP of seven bytes", short(6), Malformed),
        sends(
            "TCP of no bytes",
            datagram_from_sandbox(SERVER.v6, IpPayload::raw(6, &[])),
            Malformed,
        ),
    ]);
}

#[test]
fn extension_headers_are_walked_or_dropped() {
    let tcp = || syn_from_sandbox(SERVER.v6, 22);
    let options = || ExtensionHeader::destination_options(1);
    let many =
        |count: usize| (0..count).fold(tcp(), |datagram, _| datagram.with_extension(options()));
    let atomic = || ExtensionHeader::fragment(0, false, 7);
    DatapathCase::with_network(ALLOW_ALL).assert_steps(&[
        sends("hop-by-hop options", tcp().with_extension(ExtensionHeader::hop_by_hop()), NoRule),
        sends("destination options", tcp().with_extension(options()), NoRule),
        sends(
            "long destination options",
            tcp().with_extension(ExtensionHeader::destination_options(30)),
            NoRule,
        ),
        sends(
            "an authentication header",
            tcp().with_extension(ExtensionHeader::authentication()),
            NoRule,
        ),
        sends("an atomic fragment", tcp().with_extension(atomic()), NoRule),
        sends(
            "all kinds",
            tcp()
                .with_extension(ExtensionHeader::hop_by_hop())
                .with_extension(options())
                .with_extension(atomic())
                .with_extension(ExtensionHeader::authentication())
                .with_extension(options()),
            NoRule,
        ),
        sends("six headers", many(6), NoRule),
        sends("seven headers", many(7), ExtensionHeaders),
        sends("a routing header", tcp().with_extension(ExtensionHeader::routing()), IpOptions),
        sends(
            "a routing header behind others",
            tcp()
                .with_extension(ExtensionHeader::hop_by_hop())
                .with_extension(ExtensionHeader::routing()),
            IpOptions,
        ),
        sends(
            "two fragment headers",
            tcp()
                .with_extension(ExtensionHeader::fragment(0, true, 7))
                .with_extension(ExtensionHeader::fragment(0, true, 8)),
            ExtensionHeaders,
        ),
        sends(
            "two atomic fragment headers",
            tcp().with_extension(atomic()).with_extension(atomic()),
            ExtensionHeaders,
        ),
        sends(
            "an atomic one and a later one",
            tcp().with_extension(atomic()).with_extension(ExtensionHeader::fragment(64, false, 8)),
            ExtensionHeaders,
        ),
        sends(
            "options longer than the datagram",
            tcp().with_extension(options().with_length_field(3)),
            ExtensionHeaders,
        ),
        sends(
            "options as long as can be said",
            tcp().with_extension(options().with_length_field(255)),
            ExtensionHeaders,
        ),
        sends(
            "an odd authentication header",
            tcp().with_extension(ExtensionHeader::authentication().with_length_field(3)),
            ExtensionHeaders,
        ),
        sends(
            "a chain that ends in the air",
            datagram_from_sandbox(SERVER.v6, IpPayload::raw(60, &[6, 0, 1, 4])),
            ExtensionHeaders,
        ),
        sends(
            "a chain with nothing behind",
            datagram_from_sandbox(SERVER.v6, IpPayload::raw(0, &[])),
            ExtensionHeaders,
        ),
        sends(
            "TCP hidden in padding",
            datagram_from_sandbox(SERVER.v6, IpPayload::raw(60, &[6, 0, 1, 4, 0, 0, 0, 0]))
                .to_frame()
                .padded(&IpPayload::syn(1, 22).bytes),
            Malformed,
        ),
    ]);
}
