//! Line 2: the ARP and the neighbour discovery that a sandbox needs, and what it must not say.

use std::net::Ipv6Addr;

use policy_common::reason::Reason::{Malformed, Neighbor, NeighborSpoof, SpoofedMac};
use policy_tests::packet::{
    ETHERNET, Extension, Frame,
    arp::Arp,
    cast::{GATEWAY, NEIGHBOUR, SANDBOX, SANDBOX_LINK_LOCAL, SANDBOX_TOO, SERVER},
    discovery::{
        ALL_NODES,
        Option::{Nonce, Other, Source, Target},
        advertisement, listener_query, listener_report, redirect, router_advertisement,
        router_solicitation, solicitation, solicited_node,
    },
};

use super::stage::{Setting, Stage, out};

const SHUT: &str = r#"{"denyOut": ["0.0.0.0/0"]}"#;
const NOWHERE: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const ICMP: usize = ETHERNET + 40;

#[test]
fn arp_about_itself_passes_and_no_other() {
    let own = (SANDBOX.mac, SANDBOX.v4);
    let gateway = (GATEWAY.mac, GATEWAY.v4);
    let nobody = [0, 0, 0, 0].into();
    let request = || Arp::request(own, GATEWAY.v4).frame();
    Stage::with(SHUT).judge(&[
        out("who has the gateway", request(), Neighbor),
        out("padded", request().padded(&[0; 18]), Neighbor),
        out("with something behind it", request().padded(&[0; 19]), NeighborSpoof),
        out("reversed", request().with(ETHERNET + 6, &[0, 3]), NeighborSpoof),
        out("an answer to the gateway", Arp::reply(own, gateway).frame(), Neighbor),
        out(
            "about its other address",
            Arp::reply((SANDBOX.mac, SANDBOX_TOO), gateway).frame(),
            Neighbor,
        ),
        out("here I am", Arp::request(own, SANDBOX.v4).frame(), Neighbor),
        out(
            "is my address free",
            Arp::request((SANDBOX.mac, nobody), SANDBOX.v4).frame(),
            Neighbor,
        ),
        out(
            "is another's address free",
            Arp::request((SANDBOX.mac, nobody), NEIGHBOUR.v4).frame(),
            NeighborSpoof,
        ),
        out(
            "I am the gateway",
            Arp::reply((SANDBOX.mac, GATEWAY.v4), (NEIGHBOUR.mac, NEIGHBOUR.v4)).frame(),
            NeighborSpoof,
        ),
        out(
            "I am the neighbour",
            Arp::request((SANDBOX.mac, NEIGHBOUR.v4), GATEWAY.v4).frame(),
            NeighborSpoof,
        ),
        out(
            "I am at the neighbour's MAC",
            Arp::reply((NEIGHBOUR.mac, SANDBOX.v4), gateway).frame(),
            NeighborSpoof,
        ),
        out(
            "the gateway's frame",
            Arp::reply(gateway, own).frame().from_mac(GATEWAY.mac),
            SpoofedMac,
        ),
        out("not for Ethernet", request().with(ETHERNET, &[0, 6]), NeighborSpoof),
        out("not for IPv4", request().with(ETHERNET + 2, &[0x86, 0xdd]), NeighborSpoof),
        out("long addresses", request().with(ETHERNET + 4, &[8, 16]), NeighborSpoof),
        out("with data behind", request().padded(&[1; 19]), NeighborSpoof),
        out("neither a request nor a reply", request().with(ETHERNET + 7, &[3]), NeighborSpoof),
        out("cut", request().cut(ETHERNET + 27), Malformed),
    ]);
}

#[test]
fn arp_without_a_known_mac_tells_the_mac_of_its_frame() {
    let setting = Setting { mac_known: false, ..Setting::default() };
    let own = Arp::request((SANDBOX.mac, SANDBOX.v4), GATEWAY.v4).frame();
    Stage::set(SHUT, setting).judge(&[
        out("its own", own.clone(), Neighbor),
        out("another's", own.from_mac(NEIGHBOUR.mac), NeighborSpoof),
    ]);
}

#[test]
fn discovery_about_itself_passes() {
    let own = SANDBOX.v6;
    let asked = solicitation(own, GATEWAY.v6, &[Source(SANDBOX.mac)]).frame();
    let alone = asked.with(ETHERNET + 24, &GATEWAY.v6.octets());
    Stage::with(SHUT).judge(&[
        out("who has the gateway", solicitation(own, GATEWAY.v6, &[Source(SANDBOX.mac)]), Neighbor),
        out("asked of the gateway alone", alone, Neighbor),
        out(
            "from its link-local address",
            solicitation(SANDBOX_LINK_LOCAL, GATEWAY.v6, &[Source(SANDBOX.mac)]),
            Neighbor,
        ),
        out("without its MAC", solicitation(own, GATEWAY.v6, &[]), Neighbor),
        out("is my address taken", solicitation(NOWHERE, own, &[]), Neighbor),
        out("the same with a nonce", solicitation(NOWHERE, own, &[Nonce([7; 6])]), Neighbor),
        out(
            "is my link-local address taken",
            solicitation(NOWHERE, SANDBOX_LINK_LOCAL, &[]),
            Neighbor,
        ),
        out("I am here", advertisement(own, GATEWAY.v6, own, &[Target(SANDBOX.mac)]), Neighbor),
        out(
            "I am here, all of you",
            advertisement(own, ALL_NODES, own, &[Target(SANDBOX.mac)]),
            Neighbor,
        ),
        out(
            "is there a router",
            router_solicitation(SANDBOX_LINK_LOCAL, &[Source(SANDBOX.mac)]),
            Neighbor,
        ),
        out("is there a router, from nowhere", router_solicitation(NOWHERE, &[]), Neighbor),
        out("I listen", listener_report(SANDBOX_LINK_LOCAL, solicited_node(own)), Neighbor),
        out("I listen, from nowhere", listener_report(NOWHERE, solicited_node(own)), Neighbor),
    ]);
}

#[test]
fn discovery_about_others_is_dropped() {
    let own = SANDBOX.v6;
    let lies = |target| advertisement(own, ALL_NODES, target, &[Target(SANDBOX.mac)]);
    let router = || router_advertisement(SANDBOX_LINK_LOCAL, &[Source(SANDBOX.mac)]);
    let better_way = redirect(SANDBOX_LINK_LOCAL, NEIGHBOUR.v6, own, SERVER.v6);
    Stage::with(SHUT).judge(&[
        out("I am the gateway", lies(GATEWAY.v6), NeighborSpoof),
        out("I am the neighbour", lies(NEIGHBOUR.v6), NeighborSpoof),
        out(
            "I am at the neighbour's MAC",
            advertisement(own, ALL_NODES, own, &[Target(NEIGHBOUR.mac)]),
            NeighborSpoof,
        ),
        out(
            "as the gateway",
            advertisement(GATEWAY.v6, ALL_NODES, GATEWAY.v6, &[Target(SANDBOX.mac)]),
            NeighborSpoof,
        ),
        out(
            "asked as the neighbour",
            solicitation(NEIGHBOUR.v6, GATEWAY.v6, &[Source(SANDBOX.mac)]),
            NeighborSpoof,
        ),
        out(
            "asked for the neighbour's MAC",
            solicitation(own, GATEWAY.v6, &[Source(NEIGHBOUR.mac)]),
            NeighborSpoof,
        ),
        out("is another's address taken", solicitation(NOWHERE, NEIGHBOUR.v6, &[]), NeighborSpoof),
        out("I am a router", router(), NeighborSpoof),
        out("there is a better way", better_way, NeighborSpoof),
        out("who listens", listener_query(SANDBOX_LINK_LOCAL), NeighborSpoof),
        out(
            "a neighbour listens",
            listener_report(NEIGHBOUR.v6, solicited_node(NEIGHBOUR.v6)),
            NeighborSpoof,
        ),
    ]);
}

#[test]
fn discovery_carries_nothing_off_the_link() {
    let own = SANDBOX.v6;
    let ask = || solicitation(own, GATEWAY.v6, &[Source(SANDBOX.mac)]);
    let tell = |to| advertisement(own, to, own, &[Target(SANDBOX.mac)]);
    let report = || listener_report(own, solicited_node(own));
    let laden_report = report().behind(Extension::destination_options(4));
    // Eight bytes more, and the payload's length made to fit.
    let laden = |frame: Frame| {
        let longer = frame.bytes()[ETHERNET + 5] + 8;
        frame.padded(b"exfiltra").with(ETHERNET + 5, &[longer])
    };
    let fragment = || ask().behind(Extension::fragment(0, true, 1));
    let to_server = |frame: Frame| frame.with(ETHERNET + 24, &SERVER.v6.octets());
    Stage::with("{}").judge(&[
        out("told to a server", tell(SERVER.v6), NeighborSpoof),
        out("told to a wider group", tell("ff05::1".parse().expect("an address")), NeighborSpoof),
        out("asked of a server", to_server(ask().frame()), NeighborSpoof),
        out("reported to a server", to_server(report().frame()), NeighborSpoof),
        out("asked with a hop limit that a router left", ask().hops(254), NeighborSpoof),
        out("reported with a hop limit for routers", report().hops(64), NeighborSpoof),
        out("asked with a code", ask().frame().with(ICMP + 1, &[1]), NeighborSpoof),
        out("asked in fragments", fragment(), NeighborSpoof),
        out(
            "with two options",
            solicitation(own, GATEWAY.v6, &[Source(SANDBOX.mac), Nonce([0; 6])]),
            NeighborSpoof,
        ),
        out(
            "with an option for routers",
            solicitation(own, GATEWAY.v6, &[Other(3)]),
            NeighborSpoof,
        ),
        out("with data behind the option", laden(ask().frame()), NeighborSpoof),
        out("with data in a report", laden(report().frame()), NeighborSpoof),
        out("with data in reserved bits", ask().frame().with(ICMP + 4, &[1]), NeighborSpoof),
        out("behind options", ask().behind(Extension::destination_options(1)), NeighborSpoof),
        out("reported behind many options", laden_report, NeighborSpoof),
        out("with half a target", ask().frame().with(ETHERNET + 4, &[0, 16]), NeighborSpoof),
    ]);
}
