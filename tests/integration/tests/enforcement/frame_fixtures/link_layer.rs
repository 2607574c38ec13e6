//! Line 1: VLAN tags, and EtherTypes that no rule covers.

use super::{FixtureCollector, PAYLOAD_TOKEN};
use etherparse::ether_type::{IPV4, IPV6, PROVIDER_BRIDGING, VLAN_TAGGED_FRAME};

impl FixtureCollector {
    /// IP packets that would be valid without their tags.
    pub(super) fn add_vlan_tags(&mut self) {
        let me = self.source;
        let packets = [
            ("IPv4", IPV4, me.udp(self.v4.into(), 9, PAYLOAD_TOKEN)),
            ("IPv6", IPV6, me.udp(self.v6.into(), 9, PAYLOAD_TOKEN)),
        ];
        for (name, ethertype, frame) in packets {
            let packet = &frame[14..];
            let inner = [&ethertype.0.to_be_bytes(), packet].concat();
            let in_vlan = |id: u16| [&id.to_be_bytes()[..], &inner].concat();
            let tagged = |id| me.frame(VLAN_TAGGED_FRAME.0, &in_vlan(id));
            let twice = [&[0, 7], &VLAN_TAGGED_FRAME.0.to_be_bytes(), &in_vlan(5)[..]].concat();
            let tags = [
                ("in VLAN 5", tagged(5)),
                ("with a priority tag", tagged(0x6000)),
                ("in a service VLAN", me.frame(PROVIDER_BRIDGING.0, &in_vlan(7))),
                ("in two VLANs", me.frame(VLAN_TAGGED_FRAME.0, &twice)),
                ("in a VLAN in a service VLAN", me.frame(PROVIDER_BRIDGING.0, &twice)),
            ];
            for (tag, frame) in tags {
                self.add_denied_with_mark("vlan", format!("{name} {tag}"), frame, packet.to_vec());
            }
        }
    }

    /// Neither IPv4, IPv6 nor ARP.
    pub(super) fn add_unknown_ethertypes(&mut self) {
        let me = self.source;
        let kinds = [
            ("LLDP", 0x88cc),
            ("MPLS", 0x8847),
            ("PPPoE", 0x8864),
            ("reverse ARP", 0x8035),
            ("an experiment", 0x88b5),
            ("a length, as in 802.3", 0x0020),
        ];
        for (name, ethertype) in kinds {
            let frame = me.frame(ethertype, &[PAYLOAD_TOKEN, &ethertype.to_be_bytes()].concat());
            self.add_denied("unknown_ethertype", name, frame);
        }
    }
}
