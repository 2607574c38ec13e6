//! Denials of background traffic are counted, but not reported as events.

use std::net::{IpAddr, Ipv6Addr};

use policy_common::reason::Reason::{self, IpOptions, NeighborSpoof, PlatformDeny, SpoofedIp};
use policy_testbed::packets::{
    EthernetFrame, IpDatagram, IpPayload,
    neighbor_messages::{
        ALL_NODES,
        NdOption::{SourceLinkAddress, TargetLinkAddress},
        listener_report, neighbor_advertisement, neighbor_solicitation, router_solicitation,
        solicited_node_group,
    },
    test_hosts::SANDBOX,
};

use super::datapath_case::{DENY_ALL, DatapathCase, datagram_from_sandbox};

/// A link-local address with a random interface identifier (RFC 7217).
const RANDOM: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x8d3b, 0x6f01, 0x22c4, 0x91ee);
/// A link-local address that somebody chose, and one that is derived from another MAC.
const CHOSEN: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const OTHERS_MAC: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x00fc, 0xff, 0xfe00, 6);

fn to_group(group: &str, payload: IpPayload) -> IpDatagram {
    datagram_from_sandbox(group.parse::<IpAddr>().expect("a group"), payload)
}

fn mdns() -> IpPayload {
    IpPayload::udp(5353, 5353, b"query")
}

#[track_caller]
fn assert_reported(frames: &[(&str, EthernetFrame, Reason)], reported: bool) {
    let mut stage = DatapathCase::with_network(DENY_ALL);
    for (what, frame, reason) in frames {
        let seen = stage.programs.from_sandbox(frame.bytes()).expect("the gate runs");
        assert_eq!(seen.reason, Some(*reason), "{what} is counted");
        assert_eq!(seen.event.is_some(), reported, "{what}: {:?}", seen.event);
    }
}

#[test]
fn background_traffic_is_counted_and_not_reported() {
    let own_mac = [SourceLinkAddress(SANDBOX.mac)];
    let igmp = || to_group("224.0.0.22", IpPayload::raw(2, &[0x22; 16]));
    let v6_mdns = |source: Ipv6Addr| {
        IpDatagram::new(source, "ff02::fb".parse::<Ipv6Addr>().expect("a group"), mdns())
    };
    assert_reported(
        &[
            ("IGMP", igmp().to_frame(), PlatformDeny),
            (
                "IGMP with a router alert",
                igmp().with_options(&[148, 4, 0, 0]).to_frame(),
                IpOptions,
            ),
            ("mDNS", to_group("224.0.0.251", mdns()).to_frame(), PlatformDeny),
            ("mDNS over IPv6", v6_mdns(SANDBOX.v6).to_frame(), PlatformDeny),
            ("LLMNR", to_group("ff02::1:3", IpPayload::udp(1, 5355, b"")).to_frame(), PlatformDeny),
            ("mDNS from a random address", v6_mdns(RANDOM).to_frame(), SpoofedIp),
            (
                "a random address asks for routers",
                router_solicitation(RANDOM, &own_mac).to_frame(),
                NeighborSpoof,
            ),
            (
                "is a random address free",
                neighbor_solicitation(Ipv6Addr::UNSPECIFIED, RANDOM, &[]).to_frame(),
                NeighborSpoof,
            ),
            (
                "a random address asks for the gateway",
                neighbor_solicitation(RANDOM, CHOSEN, &own_mac).to_frame(),
                NeighborSpoof,
            ),
            (
                "a random address listens",
                listener_report(RANDOM, solicited_node_group(RANDOM)).to_frame(),
                NeighborSpoof,
            ),
        ],
        false,
    );
}

#[test]
fn what_may_be_an_attack_is_reported() {
    let own_mac = [SourceLinkAddress(SANDBOX.mac)];
    let spoofed = |source: Ipv6Addr| {
        IpDatagram::new(source, "ff02::fb".parse::<Ipv6Addr>().expect("a group"), mdns()).to_frame()
    };
    let advertised = [TargetLinkAddress(SANDBOX.mac)];
    assert_reported(
        &[
            (
                "VRRP",
                to_group("224.0.0.18", IpPayload::raw(112, &[0; 20])).to_frame(),
                PlatformDeny,
            ),
            (
                "UDP to a group",
                to_group("224.0.0.251", IpPayload::udp(1, 53, b"")).to_frame(),
                PlatformDeny,
            ),
            ("mDNS to a host", to_group("10.11.0.6", mdns()).to_frame(), PlatformDeny),
            (
                "IGMP to a host",
                to_group("10.11.0.6", IpPayload::raw(2, &[0; 16])).to_frame(),
                PlatformDeny,
            ),
            ("mDNS as the gateway", spoofed(CHOSEN), SpoofedIp),
            ("mDNS as another host", spoofed(OTHERS_MAC), SpoofedIp),
            (
                "I ask as the gateway",
                neighbor_solicitation(CHOSEN, RANDOM, &own_mac).to_frame(),
                NeighborSpoof,
            ),
            (
                "is the gateway's address free",
                neighbor_solicitation(Ipv6Addr::UNSPECIFIED, CHOSEN, &[]).to_frame(),
                NeighborSpoof,
            ),
            (
                "I am at a random address",
                neighbor_advertisement(RANDOM, ALL_NODES, RANDOM, &advertised).to_frame(),
                NeighborSpoof,
            ),
        ],
        true,
    );
}
