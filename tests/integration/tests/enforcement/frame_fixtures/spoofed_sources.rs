//! Line 1: addresses of others.

use std::net::Ipv6Addr;

use super::{FixtureCollector, PAYLOAD_TOKEN};
use policy_testbed::{
    network::sandbox::link_local_address, packet_socket::FrameBuilder,
    packets::arp_packet::ArpPacket,
};

const FOREIGN_MAC: [u8; 6] = [0x02, 0xfc, 0, 0, 0xff, 0xff];
const FOREIGN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x11, 222, 0, 0, 0, 0, 2);

impl FixtureCollector {
    /// Frames whose source is not the sandbox.
    pub(super) fn add_spoofed_sources(&mut self) {
        let me = self.source;
        let v4 = [
            ("a foreign address", [10, 11, 222, 2].into()),
            ("the gateway's address", self.v4),
            ("no address", [0, 0, 0, 0].into()),
            ("loopback", [127, 0, 0, 1].into()),
            ("a public address", [8, 8, 8, 8].into()),
        ];
        for (name, v4) in v4 {
            let frame = FrameBuilder { v4, ..me }.udp(self.v4.into(), 9, PAYLOAD_TOKEN);
            self.add_denied("spoofed_ip", format!("IPv4 from {name}"), frame);
        }
        let v6 = [
            ("a foreign address", FOREIGN_V6),
            ("the gateway's address", self.v6),
            ("no address", Ipv6Addr::UNSPECIFIED),
            ("loopback", Ipv6Addr::LOCALHOST),
            ("the link-local address", link_local_address(me.mac)),
            ("its own IPv4 address, mapped", me.v4.to_ipv6_mapped()),
        ];
        for (name, v6) in v6 {
            let frame = FrameBuilder { v6, ..me }.udp(self.v6.into(), 9, PAYLOAD_TOKEN);
            self.add_denied("spoofed_ip", format!("IPv6 from {name}"), frame);
        }
        self.add_spoofed_macs();
    }

    fn add_spoofed_macs(&mut self) {
        let other = FrameBuilder { mac: FOREIGN_MAC, ..self.source };
        let (v4, v6) = (self.v4.into(), self.v6.into());
        self.add_denied("spoofed_mac", "IPv4 from a foreign MAC", other.udp(v4, 9, PAYLOAD_TOKEN));
        self.add_denied("spoofed_mac", "IPv6 from a foreign MAC", other.udp(v6, 9, PAYLOAD_TOKEN));
        let arp = other.arp(ArpPacket::request((other.mac, other.v4), self.v4));
        self.add_denied("spoofed_mac", "ARP from a foreign MAC", arp);
    }
}
