//! Line 2: the ARP and the neighbour discovery that a sandbox needs, and messages that it must not
//! send.

use std::net::Ipv6Addr;

use policy_common::reason::Reason::{Malformed, Neighbor, NeighborSpoof, SpoofedMac};
use policy_testbed::packets::{
    ETHERNET_HEADER_LEN, EthernetFrame, ExtensionHeader,
    arp_packet::ArpPacket,
    neighbor_messages::{
        ALL_NODES,
        NdOption::{Nonce, Other, SourceLinkAddress, TargetLinkAddress},
        icmp_redirect, listener_query, listener_report, neighbor_advertisement,
        neighbor_solicitation, router_advertisement, router_solicitation, solicited_node_group,
    },
    test_hosts::{GATEWAY, NEIGHBOR, SANDBOX, SANDBOX_LINK_LOCAL, SANDBOX_SECOND_V4, SERVER},
};

use super::datapath_case::{DENY_ALL, DatapathCase, DatapathSettings, sends};

const UNSPECIFIED: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ICMP_OFFSET: usize = ETHERNET_HEADER_LEN + 40;

#[test]
fn arp_about_itself_passes_and_no_other() {
    let own = (SANDBOX.mac, SANDBOX.v4);
    let gateway = (GATEWAY.mac, GATEWAY.v4);
    let nobody = [0, 0, 0, 0].into();
    let request = || ArpPacket::request(own, GATEWAY.v4).to_frame();
    DatapathCase::with_network(DENY_ALL).assert_steps(&[
        sends("who has the gateway", request(), Neighbor),
        sends("padded", request().padded(&[0; 18]), Neighbor),
        sends("with something behind it", request().padded(&[0; 19]), NeighborSpoof),
        sends("reversed", request().with_bytes_at(ETHERNET_HEADER_LEN + 6, &[0, 3]), NeighborSpoof),
        sends("an answer to the gateway", ArpPacket::reply(own, gateway).to_frame(), Neighbor),
        sends(
            "about its other address",
            ArpPacket::reply((SANDBOX.mac, SANDBOX_SECOND_V4), gateway).to_frame(),
            Neighbor,
        ),
        sends("here I am", ArpPacket::request(own, SANDBOX.v4).to_frame(), Neighbor),
        sends(
            "is my address free",
            ArpPacket::request((SANDBOX.mac, nobody), SANDBOX.v4).to_frame(),
            Neighbor,
        ),
        sends(
            "is another's address free",
            ArpPacket::request((SANDBOX.mac, nobody), NEIGHBOR.v4).to_frame(),
            NeighborSpoof,
        ),
        sends(
            "I am the gateway",
            ArpPacket::reply((SANDBOX.mac, GATEWAY.v4), (NEIGHBOR.mac, NEIGHBOR.v4)).to_frame(),
            NeighborSpoof,
        ),
        sends(
            "I am the neighbour",
            ArpPacket::request((SANDBOX.mac, NEIGHBOR.v4), GATEWAY.v4).to_frame(),
            NeighborSpoof,
        ),
        sends(
            "I am at the neighbour's MAC",
            ArpPacket::reply((NEIGHBOR.mac, SANDBOX.v4), gateway).to_frame(),
            NeighborSpoof,
        ),
        sends(
            "the gateway's frame",
            ArpPacket::reply(gateway, own).to_frame().with_source(GATEWAY.mac),
            SpoofedMac,
        ),
        sends(
            "not for Ethernet",
            request().with_bytes_at(ETHERNET_HEADER_LEN, &[0, 6]),
            NeighborSpoof,
        ),
        sends(
            "not for IPv4",
            request().with_bytes_at(ETHERNET_HEADER_LEN + 2, &[0x86, 0xdd]),
            NeighborSpoof,
        ),
        sends(
            "long addresses",
            request().with_bytes_at(ETHERNET_HEADER_LEN + 4, &[8, 16]),
            NeighborSpoof,
        ),
        sends("with data behind", request().padded(&[1; 19]), NeighborSpoof),
        sends(
            "neither a request nor a reply",
            request().with_bytes_at(ETHERNET_HEADER_LEN + 7, &[3]),
            NeighborSpoof,
        ),
        sends("cut", request().truncated(ETHERNET_HEADER_LEN + 27), Malformed),
    ]);
}

#[test]
fn arp_without_a_known_mac_tells_the_mac_of_its_frame() {
    let setting = DatapathSettings { mac_known: false, ..DatapathSettings::default() };
    let own = ArpPacket::request((SANDBOX.mac, SANDBOX.v4), GATEWAY.v4).to_frame();
    DatapathCase::with_settings(DENY_ALL, setting).assert_steps(&[
        sends("its own", own.clone(), Neighbor),
        sends("another's", own.with_source(NEIGHBOR.mac), NeighborSpoof),
    ]);
}

#[test]
fn discovery_about_itself_passes() {
    let own = SANDBOX.v6;
    let asked =
        neighbor_solicitation(own, GATEWAY.v6, &[SourceLinkAddress(SANDBOX.mac)]).to_frame();
    let alone = asked.with_bytes_at(ETHERNET_HEADER_LEN + 24, &GATEWAY.v6.octets());
    DatapathCase::with_network(DENY_ALL).assert_steps(&[
        sends(
            "who has the gateway",
            neighbor_solicitation(own, GATEWAY.v6, &[SourceLinkAddress(SANDBOX.mac)]),
            Neighbor,
        ),
        sends("asked of the gateway alone", alone, Neighbor),
        sends(
            "from its link-local address",
            neighbor_solicitation(
                SANDBOX_LINK_LOCAL,
                GATEWAY.v6,
                &[SourceLinkAddress(SANDBOX.mac)],
            ),
            Neighbor,
        ),
        sends("without its MAC", neighbor_solicitation(own, GATEWAY.v6, &[]), Neighbor),
        sends("is my address taken", neighbor_solicitation(UNSPECIFIED, own, &[]), Neighbor),
        sends(
            "the same with a nonce",
            neighbor_solicitation(UNSPECIFIED, own, &[Nonce([7; 6])]),
            Neighbor,
        ),
        sends(
            "is my link-local address taken",
            neighbor_solicitation(UNSPECIFIED, SANDBOX_LINK_LOCAL, &[]),
            Neighbor,
        ),
        sends(
            "I am here",
            neighbor_advertisement(own, GATEWAY.v6, own, &[TargetLinkAddress(SANDBOX.mac)]),
            Neighbor,
        ),
        sends(
            "I am here, all of you",
            neighbor_advertisement(own, ALL_NODES, own, &[TargetLinkAddress(SANDBOX.mac)]),
            Neighbor,
        ),
        sends(
            "is there a router",
            router_solicitation(SANDBOX_LINK_LOCAL, &[SourceLinkAddress(SANDBOX.mac)]),
            Neighbor,
        ),
        sends("is there a router, from nowhere", router_solicitation(UNSPECIFIED, &[]), Neighbor),
        sends("I listen", listener_report(SANDBOX_LINK_LOCAL, solicited_node_group(own)), Neighbor),
        sends(
            "I listen, from nowhere",
            listener_report(UNSPECIFIED, solicited_node_group(own)),
            Neighbor,
        ),
    ]);
}

#[test]
fn discovery_about_others_is_dropped() {
    let own = SANDBOX.v6;
    let lies =
        |target| neighbor_advertisement(own, ALL_NODES, target, &[TargetLinkAddress(SANDBOX.mac)]);
    let router = || router_advertisement(SANDBOX_LINK_LOCAL, &[SourceLinkAddress(SANDBOX.mac)]);
    let better_way = icmp_redirect(SANDBOX_LINK_LOCAL, NEIGHBOR.v6, own, SERVER.v6);
    DatapathCase::with_network(DENY_ALL).assert_steps(&[
        sends("I am the gateway", lies(GATEWAY.v6), NeighborSpoof),
        sends("I am the neighbour", lies(NEIGHBOR.v6), NeighborSpoof),
        sends(
            "I am at the neighbour's MAC",
            neighbor_advertisement(own, ALL_NODES, own, &[TargetLinkAddress(NEIGHBOR.mac)]),
            NeighborSpoof,
        ),
        sends(
            "as the gateway",
            neighbor_advertisement(
                GATEWAY.v6,
                ALL_NODES,
                GATEWAY.v6,
                &[TargetLinkAddress(SANDBOX.mac)],
            ),
            NeighborSpoof,
        ),
        sends(
            "asked as the neighbour",
            neighbor_solicitation(NEIGHBOR.v6, GATEWAY.v6, &[SourceLinkAddress(SANDBOX.mac)]),
            NeighborSpoof,
        ),
        sends(
            "asked for the neighbour's MAC",
            neighbor_solicitation(own, GATEWAY.v6, &[SourceLinkAddress(NEIGHBOR.mac)]),
            NeighborSpoof,
        ),
        sends(
            "is another's address taken",
            neighbor_solicitation(UNSPECIFIED, NEIGHBOR.v6, &[]),
            NeighborSpoof,
        ),
        sends("I am a router", router(), NeighborSpoof),
        sends("there is a better way", better_way, NeighborSpoof),
        sends("who listens", listener_query(SANDBOX_LINK_LOCAL), NeighborSpoof),
        sends(
            "a neighbour listens",
            listener_report(NEIGHBOR.v6, solicited_node_group(NEIGHBOR.v6)),
            NeighborSpoof,
        ),
    ]);
}

#[test]
fn a_solicitation_of_one_address_is_about_that_address() {
    let ask = |to: Ipv6Addr, target: Ipv6Addr| {
        neighbor_solicitation(SANDBOX.v6, target, &[SourceLinkAddress(SANDBOX.mac)])
            .to_frame()
            .with_bytes_at(ETHERNET_HEADER_LEN + 24, &to.octets())
    };
    let near_link_local = "fe80::1".parse().expect("an address");
    DatapathCase::with_network(DENY_ALL).assert_steps(&[
        sends("are you still there", ask(GATEWAY.v6, GATEWAY.v6), Neighbor),
        sends("over link-local addresses", ask(near_link_local, near_link_local), Neighbor),
        sends("about another, asked of the gateway", ask(GATEWAY.v6, NEIGHBOR.v6), NeighborSpoof),
        sends("about the gateway, asked of another", ask(NEIGHBOR.v6, GATEWAY.v6), NeighborSpoof),
        sends("about itself, asked of another", ask(NEIGHBOR.v6, SANDBOX.v6), NeighborSpoof),
        sends("of a link-local address", ask(near_link_local, GATEWAY.v6), NeighborSpoof),
    ]);
}

#[test]
fn discovery_carries_nothing_off_the_link() {
    let own = SANDBOX.v6;
    let ask = || neighbor_solicitation(own, GATEWAY.v6, &[SourceLinkAddress(SANDBOX.mac)]);
    let tell = |to| neighbor_advertisement(own, to, own, &[TargetLinkAddress(SANDBOX.mac)]);
    let report = || listener_report(own, solicited_node_group(own));
    let laden_report = report().with_extension(ExtensionHeader::destination_options(4));
    // Eight additional bytes, with an adjusted payload length.
    let laden = |frame: EthernetFrame| {
        let longer = frame.bytes()[ETHERNET_HEADER_LEN + 5] + 8;
        frame.padded(b"exfiltra").with_bytes_at(ETHERNET_HEADER_LEN + 5, &[longer])
    };
    let fragment = || ask().with_extension(ExtensionHeader::fragment(0, true, 1));
    let to_server =
        |frame: EthernetFrame| frame.with_bytes_at(ETHERNET_HEADER_LEN + 24, &SERVER.v6.octets());
    DatapathCase::with_network("{}").assert_steps(&[
        sends("told to a server", tell(SERVER.v6), NeighborSpoof),
        sends("told to a wider group", tell("ff05::1".parse().expect("an address")), NeighborSpoof),
        sends("asked of a server", to_server(ask().to_frame()), NeighborSpoof),
        sends("reported to a server", to_server(report().to_frame()), NeighborSpoof),
        sends(
            "asked with a hop limit that a router left",
            ask().with_hop_limit(254),
            NeighborSpoof,
        ),
        sends("reported with a hop limit for routers", report().with_hop_limit(64), NeighborSpoof),
        sends(
            "asked with a code",
            ask().to_frame().with_bytes_at(ICMP_OFFSET + 1, &[1]),
            NeighborSpoof,
        ),
        sends("asked in fragments", fragment(), NeighborSpoof),
        sends(
            "with two options",
            neighbor_solicitation(
                own,
                GATEWAY.v6,
                &[SourceLinkAddress(SANDBOX.mac), Nonce([0; 6])],
            ),
            NeighborSpoof,
        ),
        sends(
            "with an option for routers",
            neighbor_solicitation(own, GATEWAY.v6, &[Other(3)]),
            NeighborSpoof,
        ),
        sends("with data behind the option", laden(ask().to_frame()), NeighborSpoof),
        sends("with data in a report", laden(report().to_frame()), NeighborSpoof),
        sends(
            "with data in reserved bits",
            ask().to_frame().with_bytes_at(ICMP_OFFSET + 4, &[1]),
            NeighborSpoof,
        ),
        sends(
            "behind options",
            ask().with_extension(ExtensionHeader::destination_options(1)),
            NeighborSpoof,
        ),
        sends("reported behind many options", laden_report, NeighborSpoof),
        sends(
            "with half a target",
            ask().to_frame().with_bytes_at(ETHERNET_HEADER_LEN + 4, &[0, 16]),
            NeighborSpoof,
        ),
    ]);
}
