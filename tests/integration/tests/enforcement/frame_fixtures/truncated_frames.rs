//! Line 1: truncated frames of every length.

use super::FixtureCollector;
use policy_testbed::packets::arp_packet::ArpPacket;

/// The shortest frame that a packet socket sends: an Ethernet header and one byte.
const SHORTEST_FRAME: usize = 15;

impl FixtureCollector {
    /// All prefixes of frames that would pass if they were complete.
    pub(super) fn add_truncated(&mut self) {
        let me = self.source;
        let whole = [
            ("UDP over IPv4", me.udp(self.v4.into(), 9, b"!")),
            ("UDP over IPv6", me.udp(self.v6.into(), 9, b"!")),
            ("TCP over IPv4", me.syn(self.v4.into(), 9)),
            ("TCP over IPv6", me.syn(self.v6.into(), 9)),
            ("ping over IPv4", me.ping(self.v4.into())),
            ("ping over IPv6", me.ping(self.v6.into())),
            ("ARP", me.arp(ArpPacket::request((me.mac, me.v4), self.v4))),
        ];
        for (name, frame) in whole {
            for length in SHORTEST_FRAME..frame.len() {
                let name = format!("{length} bytes of {name}");
                self.add_denied("malformed", name, frame[..length].to_vec());
            }
        }
    }
}
