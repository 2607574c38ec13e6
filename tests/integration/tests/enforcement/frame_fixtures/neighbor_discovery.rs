//! Line 2: ARP and IPv6 neighbour discovery.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::FixtureCollector;
use policy_testbed::{
    network::sandbox::link_local_address,
    packets::{
        IpDatagram, MacAddr,
        arp_packet::ArpPacket,
        neighbor_messages::{
            ALL_NODES, NdOption, icmp_redirect, listener_query, neighbor_advertisement,
            neighbor_solicitation, router_advertisement, router_solicitation,
        },
    },
};

const FOREIGN_MAC: MacAddr = [0x02, 0xfc, 0, 0, 0xee, 0xee];
const OTHER_V4: Ipv4Addr = Ipv4Addr::new(10, 11, 222, 9);
const UNSPECIFIED_V4: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
const UNSPECIFIED_V6: Ipv6Addr = Ipv6Addr::UNSPECIFIED;
const OFF_LINK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);

impl FixtureCollector {
    /// ARP: messages that a sandbox needs, and attempts to take over an address.
    pub(super) fn add_arp(&mut self) {
        let (me, gateway) = (self.source, self.v4);
        let request = |mac, sender, target| me.arp(ArpPacket::request((mac, sender), target));
        let genuine = [
            ("who has the gateway?", request(me.mac, me.v4, gateway)),
            ("here I am", request(me.mac, me.v4, me.v4)),
            ("is my address free?", request(me.mac, UNSPECIFIED_V4, me.v4)),
            ("I have it", me.arp(ArpPacket::reply((me.mac, me.v4), (me.gateway, gateway)))),
        ];
        for (name, frame) in genuine {
            self.add_passing_as("neighbor", format!("ARP: {name}"), frame);
        }
        let mut odd = request(me.mac, me.v4, gateway);
        odd[14..16].copy_from_slice(&[0, 6]); // IEEE 802 hardware
        let spoofs = [
            ("I am the gateway", request(me.mac, gateway, gateway)),
            ("the gateway asks", request(me.mac, gateway, OTHER_V4)),
            (
                "the gateway has it",
                me.arp(ArpPacket::reply((me.mac, gateway), (me.gateway, OTHER_V4))),
            ),
            ("a foreign MAC inside", request(FOREIGN_MAC, me.v4, gateway)),
            ("a foreign address", request(me.mac, OTHER_V4, gateway)),
            ("is the gateway's address free?", request(me.mac, UNSPECIFIED_V4, gateway)),
            ("of another kind of network", odd),
        ];
        for (name, frame) in spoofs {
            self.add_denied("neighbor_spoof", format!("ARP: {name}"), frame);
        }
    }

    /// Neighbour discovery: the same cases for IPv6.
    pub(super) fn add_neighbor_discovery(&mut self) {
        let (me, gateway, link) = (self.source, self.v6, link_local_address(self.source.mac));
        let from = [NdOption::SourceLinkAddress(me.mac)];
        let at = [NdOption::TargetLinkAddress(me.mac)];
        let genuine = [
            ("who has the gateway?", neighbor_solicitation(me.v6, gateway, &from)),
            ("asked from its link-local address", neighbor_solicitation(link, gateway, &from)),
            ("here I am", neighbor_advertisement(me.v6, ALL_NODES, me.v6, &at)),
            ("is my address free?", neighbor_solicitation(UNSPECIFIED_V6, me.v6, &[])),
            ("is there a router?", router_solicitation(link, &from)),
        ];
        for (name, message) in genuine {
            self.add_passing_as("neighbor", format!("ND: {name}"), me.frame_datagram(&message));
        }
        for (name, message) in self.spoofed_discovery_messages(gateway, link) {
            self.add_denied("neighbor_spoof", format!("ND: {name}"), me.frame_datagram(&message));
        }
    }

    fn spoofed_discovery_messages(
        &self,
        gateway: Ipv6Addr,
        link: Ipv6Addr,
    ) -> Vec<(&'static str, IpDatagram)> {
        let me = self.source;
        let (from, at) =
            ([NdOption::SourceLinkAddress(me.mac)], [NdOption::TargetLinkAddress(me.mac)]);
        let (foreign, elsewhere) = (
            [NdOption::SourceLinkAddress(FOREIGN_MAC)],
            [NdOption::TargetLinkAddress(FOREIGN_MAC)],
        );
        let ask = neighbor_solicitation(me.v6, gateway, &from);
        let mut away = ask.clone();
        away.destination = OFF_LINK_V6.into();
        vec![
            ("I am the gateway", neighbor_advertisement(me.v6, ALL_NODES, gateway, &at)),
            ("the gateway says so", neighbor_advertisement(gateway, ALL_NODES, gateway, &at)),
            ("the gateway asks", neighbor_solicitation(gateway, me.v6, &from)),
            ("a foreign MAC, asking", neighbor_solicitation(me.v6, gateway, &foreign)),
            (
                "a foreign MAC, answering",
                neighbor_advertisement(me.v6, ALL_NODES, me.v6, &elsewhere),
            ),
            ("a foreign address", neighbor_solicitation(OFF_LINK_V6, gateway, &from)),
            ("is the gateway's free?", neighbor_solicitation(UNSPECIFIED_V6, gateway, &[])),
            ("from more than a link away", ask.with_hop_limit(64)),
            ("to more than a link away", away),
            ("I am a router", router_advertisement(link, &from)),
            ("I know a better way", icmp_redirect(link, self.v6, me.v6, OFF_LINK_V6)),
            ("who listens?", listener_query(link)),
            ("with an option that routers send", router_solicitation(link, &[NdOption::Other(3)])),
        ]
    }
}
