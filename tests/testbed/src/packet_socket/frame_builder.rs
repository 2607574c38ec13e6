//! Builds raw frames with a sender's addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::ether_type;

use crate::{
    network::sandbox::SandboxAddressing,
    packets::{IpDatagram, IpPayload, MacAddr, TcpFlags, arp_packet::ArpPacket},
};

/// The source port of raw datagrams and segments.
pub const SOURCE_PORT: u16 = 40_000;

/// The sender and the next hop of a frame. A changed field makes the frame spoofed.
#[derive(Clone, Copy, Debug)]
pub struct FrameBuilder {
    /// Source MAC.
    pub mac: MacAddr,
    /// Destination MAC.
    pub gateway: MacAddr,
    /// Source IPv4 address.
    pub v4: Ipv4Addr,
    /// Source IPv6 address.
    pub v6: Ipv6Addr,
}

impl FrameBuilder {
    /// A sandbox with its own addresses.
    pub fn for_sandbox(identity: SandboxAddressing) -> Self {
        Self {
            mac: identity.mac(),
            gateway: identity.gateway_mac(),
            v4: identity.v4(),
            v6: identity.v6(),
        }
    }

    /// A frame with any payload.
    pub fn frame(&self, ethertype: u16, payload: &[u8]) -> Vec<u8> {
        [&self.gateway[..], &self.mac, &ethertype.to_be_bytes(), payload].concat()
    }

    /// A datagram with this payload, which a test can modify.
    pub fn datagram_to(&self, to: IpAddr, payload: IpPayload) -> IpDatagram {
        match to {
            IpAddr::V4(_) => IpDatagram::new(self.v4, to, payload),
            IpAddr::V6(_) => IpDatagram::new(self.v6, to, payload),
        }
    }

    /// A datagram in a frame.
    pub fn frame_datagram(&self, datagram: &IpDatagram) -> Vec<u8> {
        let v4 = datagram.source.is_ipv4();
        let ethertype = if v4 { ether_type::IPV4 } else { ether_type::IPV6 };
        self.frame(ethertype.0, &datagram.to_packet())
    }

    /// An ARP packet in a broadcast frame.
    pub fn arp(&self, arp: ArpPacket) -> Vec<u8> {
        arp.to_frame().with_source(self.mac).bytes().to_vec()
    }

    /// A payload in a frame.
    pub fn frame_payload(&self, to: IpAddr, payload: IpPayload) -> Vec<u8> {
        self.frame_datagram(&self.datagram_to(to, payload))
    }

    /// A UDP datagram in a frame.
    pub fn udp(&self, to: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
        self.frame_payload(to, IpPayload::udp(SOURCE_PORT, port, data))
    }

    /// A TCP SYN in a frame.
    pub fn syn(&self, to: IpAddr, port: u16) -> Vec<u8> {
        self.frame_payload(to, IpPayload::tcp(SOURCE_PORT, port, TcpFlags::SYN))
    }

    /// An ICMP echo request in a frame.
    pub fn ping(&self, to: IpAddr) -> Vec<u8> {
        self.frame_payload(to, IpPayload::icmp_echo(to, false, 0x7777, b"ping"))
    }
}
