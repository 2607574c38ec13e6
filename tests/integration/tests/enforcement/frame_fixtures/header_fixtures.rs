//! Line 1: headers with inconsistent fields.

use std::net::IpAddr;

use super::{FixtureCollector, PAYLOAD_TOKEN};
use etherparse::{
    ether_type::{IPV4, IPV6},
    ip_number::{ICMP, IPV6_ICMP, TCP, UDP},
};

use policy_testbed::{
    packet_socket::SOURCE_PORT,
    packets::{IpPayload, TcpFlags},
};

/// The offset of the IP header in a frame.
const IP_OFFSET: usize = 14;
/// The offset of the transport header in an IPv4 frame without options.
const V4_TRANSPORT_OFFSET: usize = IP_OFFSET + 20;

impl FixtureCollector {
    /// IPv4: options, and fields that contradict the frame.
    pub(super) fn add_ipv4_headers(&mut self) {
        let (me, to) = (self.source, self.v4);
        let options: [(&str, &[u8]); 4] = [
            ("a loose source route", &[131, 7, 4, 8, 8, 8, 8, 0]),
            ("a strict source route", &[137, 7, 4, 8, 8, 8, 8, 0]),
            ("a record of its route", &[7, 7, 4, 0, 0, 0, 0, 0]),
            ("padding", &[1, 1, 1, 0]),
        ];
        for (name, options) in options {
            let frame = me.frame_datagram(&self.udp_datagram(to).with_options(options));
            self.add_denied("ip_options", format!("IPv4 with {name}"), frame);
        }
        let frame = me.udp(to.into(), 9, PAYLOAD_TOKEN);
        let odd: [(&str, usize, &[u8]); 5] = [
            ("version 5", 0, &[0x55]),
            ("a header of 16 bytes", 0, &[0x44]),
            ("a header of 0 bytes", 0, &[0x40]),
            ("a length beyond the frame", 2, &[0xff, 0xff]),
            ("a length within the header", 2, &[0, 19]),
        ];
        for (name, at, bytes) in odd {
            let frame = with_bytes_at(&frame, IP_OFFSET + at, bytes);
            self.add_denied("malformed", format!("IPv4 with {name}"), frame);
        }
        let six = me.udp(self.v6.into(), 9, PAYLOAD_TOKEN);
        self.add_denied(
            "malformed",
            "IPv6 that says it is IPv4",
            me.frame(IPV4.0, &six[IP_OFFSET..]),
        );
    }

    /// IPv6: fields that contradict the frame.
    pub(super) fn add_ipv6_headers(&mut self) {
        let me = self.source;
        let frame = me.udp(self.v6.into(), 9, PAYLOAD_TOKEN);
        let odd: [(&str, usize, &[u8]); 3] = [
            ("version 7", 0, &[0x70]),
            ("a length beyond the frame", 4, &[0xff, 0xff]),
            ("a length within the UDP header", 4, &[0, 7]),
        ];
        for (name, at, bytes) in odd {
            let frame = with_bytes_at(&frame, IP_OFFSET + at, bytes);
            self.add_denied("malformed", format!("IPv6 with {name}"), frame);
        }
        let four = me.udp(self.v4.into(), 9, PAYLOAD_TOKEN);
        self.add_denied(
            "malformed",
            "IPv4 that says it is IPv6",
            me.frame(IPV6.0, &four[IP_OFFSET..]),
        );
    }

    /// Transport headers that are truncated or declare a length that is too large.
    pub(super) fn add_transport_headers(&mut self) {
        let me = self.source;
        for to in [IpAddr::from(self.v4), self.v6.into()] {
            let whole = IpPayload::tcp(SOURCE_PORT, 9, TcpFlags::SYN).with_data(PAYLOAD_TOKEN);
            for (name, words) in [("of 16 bytes", 0x40), ("of 0 bytes", 0), ("too long", 0xf0)] {
                let frame = me.frame_payload(to, whole.clone().with_bytes_at(12, &[words]));
                self.add_denied("malformed", format!("a TCP header {name} to {to}"), frame);
            }
            let icmp = if to.is_ipv4() { ICMP } else { IPV6_ICMP };
            for (name, protocol, length) in [("TCP", TCP, 19), ("UDP", UDP, 7), ("ICMP", icmp, 7)] {
                let frame =
                    me.frame_payload(to, IpPayload::raw(protocol.0, &whole.bytes[..length]));
                self.add_denied("malformed", format!("{length} bytes of {name} to {to}"), frame);
            }
        }
        let frame = me.udp(self.v4.into(), 9, PAYLOAD_TOKEN);
        let short = with_bytes_at(&frame, IP_OFFSET + 2, &[0, 24]);
        assert!(short.len() > V4_TRANSPORT_OFFSET + 8, "the frame itself is long enough");
        self.add_denied("malformed", "a length within the UDP header", short);
    }
}

/// Returns a frame with other bytes at an offset.
fn with_bytes_at(frame: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}
