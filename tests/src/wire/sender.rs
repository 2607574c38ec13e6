//! Who sends raw frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::ether_type;

use crate::{
    packet::{Datagram, Mac, Payload, TcpFlags, arp::Arp},
    world::sandbox::Identity,
};

/// Port that raw datagrams and segments come from.
pub const FROM_PORT: u16 = 40_000;

/// Who sends a frame, and through whom. Change a field and it is spoofed.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    /// Source MAC.
    pub mac: Mac,
    /// Destination MAC.
    pub gateway: Mac,
    /// Source IPv4 address.
    pub v4: Ipv4Addr,
    /// Source IPv6 address.
    pub v6: Ipv6Addr,
}

impl Sender {
    /// A sandbox that says who it is.
    pub fn genuine(identity: Identity) -> Self {
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

    /// A datagram that carries this, to be bent.
    pub fn datagram(&self, to: IpAddr, payload: Payload) -> Datagram {
        match to {
            IpAddr::V4(_) => Datagram::new(self.v4, to, payload),
            IpAddr::V6(_) => Datagram::new(self.v6, to, payload),
        }
    }

    /// A datagram in a frame.
    pub fn framed(&self, datagram: &Datagram) -> Vec<u8> {
        let v4 = datagram.source.is_ipv4();
        let ethertype = if v4 { ether_type::IPV4 } else { ether_type::IPV6 };
        self.frame(ethertype.0, &datagram.packet())
    }

    /// An ARP packet in a frame to everybody.
    pub fn arp(&self, arp: Arp) -> Vec<u8> {
        arp.frame().from_mac(self.mac).bytes().to_vec()
    }

    /// What is carried, in a frame.
    pub fn send(&self, to: IpAddr, payload: Payload) -> Vec<u8> {
        self.framed(&self.datagram(to, payload))
    }

    /// A UDP datagram in a frame.
    pub fn udp(&self, to: IpAddr, port: u16, data: &[u8]) -> Vec<u8> {
        self.send(to, Payload::udp(FROM_PORT, port, data))
    }

    /// The opening segment of a TCP connection in a frame.
    pub fn syn(&self, to: IpAddr, port: u16) -> Vec<u8> {
        self.send(to, Payload::tcp(FROM_PORT, port, TcpFlags::SYN))
    }

    /// An ICMP echo request in a frame.
    pub fn ping(&self, to: IpAddr) -> Vec<u8> {
        self.send(to, Payload::echo(to, false, 0x7777, b"ping"))
    }
}
