//! Random packets: many match rules, some refer to earlier state, some are malformed.

use std::net::IpAddr;

use fastrand::Rng;
use ipnet::IpNet;

use super::random_addresses;
use policy_oracle::InboundOrigin;
use policy_testbed::packets::{
    EthernetFrame, ExtensionHeader, IpDatagram, IpPayload, TcpFlags,
    arp_packet::ArpPacket,
    neighbor_messages::{
        self,
        NdOption::{Nonce, SourceLinkAddress, TargetLinkAddress},
    },
    test_hosts::{GATEWAY, NEIGHBOR, SANDBOX, SANDBOX_LINK_LOCAL, SANDBOX_SECOND_V4},
};

const PORTS: [u16; 6] = [22, 53, 80, 443, 4000, 40_000];
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x00, 0xc2];

/// A packet and its direction.
pub enum RandomPacket {
    /// From the sandbox.
    FromSandbox(EthernetFrame),
    /// To the sandbox.
    ToSandbox(EthernetFrame, InboundOrigin),
}

/// Generates packets. It remembers some of them, so that later ones can refer to them.
pub struct PacketGenerator<'a> {
    rng: &'a mut Rng,
    nets: &'a [IpNet],
    /// Packets to the sandbox: source, source port, destination port.
    inbound: Vec<(IpAddr, u16, u16)>,
    /// Fragmented datagrams.
    fragmented: Vec<IpDatagram>,
}

impl<'a> PacketGenerator<'a> {
    /// Creates a generator of packets to addresses near these prefixes.
    pub fn near(nets: &'a [IpNet], rng: &'a mut Rng) -> Self {
        Self { rng, nets, inbound: Vec::new(), fragmented: Vec::new() }
    }

    /// Returns the next packet.
    pub fn next_packet(&mut self) -> RandomPacket {
        let frame = match self.rng.u8(..16) {
            0 | 1 => return self.inbound_packet(),
            2 | 3 => self.answer_to_inbound().to_frame(),
            4 => self.random_arp().to_frame(),
            5 => self.random_discovery().to_frame(),
            6 | 7 => self.random_fragment().to_frame(),
            _ => self.random_datagram().to_frame(),
        };
        RandomPacket::FromSandbox(match self.rng.u8(..16) {
            0 | 1 => self.mutate_frame(frame),
            2 => frame.with_source(NEIGHBOR.mac),
            3 => frame.with_vlan_tag(0x8100, 5),
            _ => frame,
        })
    }

    fn random_datagram(&mut self) -> IpDatagram {
        let to = random_addresses::address_near(self.rng, self.nets);
        let payload = self.random_payload(to);
        let datagram = IpDatagram::new(self.random_source(to), to, payload);
        if to.is_ipv6() && self.rng.u8(..4) == 0 {
            self.with_random_extensions(datagram)
        } else {
            datagram
        }
    }

    fn random_payload(&mut self, to: IpAddr) -> IpPayload {
        let (from_port, to_port) = (self.random_port(), self.random_port());
        match self.rng.u8(..10) {
            0..4 => IpPayload::tcp(from_port, to_port, self.random_flags()),
            4..7 => IpPayload::udp(from_port, to_port, b"data"),
            7 => IpPayload::icmp_echo(to, self.rng.bool(), self.rng.u16(..4), b"ping"),
            8 => IpPayload::icmpv6(self.rng.u8(..), 0, [0; 4], &[0; 20]),
            _ => IpPayload::raw(self.rng.u8(..), &[self.rng.u8(..); 24]),
        }
    }

    /// One of the sandbox's addresses, or another one.
    fn random_source(&mut self, to: IpAddr) -> IpAddr {
        match (to, self.rng.u8(..20)) {
            (IpAddr::V4(_), 0) => NEIGHBOR.v4.into(),
            (IpAddr::V4(_), 1..4) => SANDBOX_SECOND_V4.into(),
            (IpAddr::V4(_), _) => SANDBOX.v4.into(),
            (IpAddr::V6(_), 0) => NEIGHBOR.v6.into(),
            (IpAddr::V6(_), 1) => SANDBOX_LINK_LOCAL.into(),
            (IpAddr::V6(_), _) => SANDBOX.v6.into(),
        }
    }

    fn with_random_extensions(&mut self, mut datagram: IpDatagram) -> IpDatagram {
        for _ in 0..self.rng.u8(1..8) {
            datagram = datagram.with_extension(match self.rng.u8(..12) {
                0..4 => ExtensionHeader::hop_by_hop(),
                4..8 => ExtensionHeader::destination_options(self.rng.u8(1..4)),
                8 | 9 => ExtensionHeader::authentication(),
                10 => ExtensionHeader::fragment(
                    self.rng.u16(..3) * 8,
                    self.rng.bool(),
                    self.rng.u32(..3),
                ),
                _ => ExtensionHeader::routing(),
            });
        }
        datagram
    }

    fn random_fragment(&mut self) -> IpDatagram {
        let known = self.fragmented.len();
        let datagram = if known > 0 && self.rng.u8(..3) > 0 {
            self.fragmented[self.rng.usize(..known)].clone()
        } else {
            let to = random_addresses::address_near(self.rng, self.nets);
            let payload = self.random_payload(to).with_data(&[0x86; 80]);
            IpDatagram::new(self.random_source(to), to, payload)
                .with_identification(self.rng.u32(..4))
        };
        self.fragmented.push(datagram.clone());
        let (start, units) = (self.rng.usize(..5), self.rng.usize(..5));
        let start = if self.rng.bool() { 0 } else { start * 8 };
        datagram.fragment(start, start + units * 8, start == 0 || self.rng.bool())
    }

    /// A packet to the sandbox, from the host or forwarded.
    fn inbound_packet(&mut self) -> RandomPacket {
        let from = if self.rng.u8(..4) == 0 {
            GATEWAY.v4.into()
        } else {
            random_addresses::address_near(self.rng, self.nets)
        };
        let (from_port, to_port) = (self.random_port(), self.random_port());
        self.inbound.push((from, from_port, to_port));
        let to = if from.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
        let payload = match self.rng.u8(..9) {
            8 => IpPayload::raw([132, 47, 50][self.rng.usize(..3)], &[self.rng.u8(..3); 24]),
            0..4 => IpPayload::syn(from_port, to_port),
            4 => IpPayload::tcp(from_port, to_port, self.random_flags()),
            5 | 6 => IpPayload::udp(from_port, to_port, b"data"),
            _ => IpPayload::icmp_echo(from, false, from_port, b"ping"),
        };
        let mut frame = IpDatagram::new(from, to, payload).to_frame();
        if self.rng.u8(..8) == 0 {
            frame = self.mutate_frame(frame);
        }
        let origin =
            if self.rng.u8(..3) == 0 { InboundOrigin::Host } else { InboundOrigin::Forwarded };
        RandomPacket::ToSandbox(frame, origin)
    }

    /// A packet that the sandbox could send in reply to an earlier inbound packet.
    fn answer_to_inbound(&mut self) -> IpDatagram {
        let known = self.inbound.len();
        if known == 0 {
            return self.random_datagram();
        }
        let (remote, remote_port, port) = self.inbound[self.rng.usize(..known)];
        let local = if remote.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
        let payload = match self.rng.u8(..8) {
            0..4 => IpPayload::tcp(port, remote_port, self.random_flags()),
            4 | 5 => IpPayload::udp(port, remote_port, b"data"),
            6 => IpPayload::icmp_echo(remote, true, remote_port, b"ping"),
            _ => {
                let received = IpPayload::tcp(remote_port, port, TcpFlags::ACK);
                IpPayload::icmp_unreachable(
                    remote,
                    &IpDatagram::new(remote, local, received).to_packet(),
                )
            }
        };
        IpDatagram::new(local, remote, payload)
    }

    fn random_arp(&mut self) -> ArpPacket {
        let macs = [SANDBOX.mac, SANDBOX.mac, NEIGHBOR.mac];
        let addresses = [SANDBOX.v4, SANDBOX_SECOND_V4, NEIGHBOR.v4, [0; 4].into()];
        let mut end = || (macs[self.rng.usize(..3)], addresses[self.rng.usize(..4)]);
        let (sender, target) = (end(), end());
        ArpPacket { operation: self.rng.u16(..4), sender, target }
    }

    fn random_discovery(&mut self) -> IpDatagram {
        let addresses = [SANDBOX.v6, SANDBOX_LINK_LOCAL, NEIGHBOR.v6, GATEWAY.v6, [0; 16].into()];
        let mut address = || addresses[self.rng.usize(..5)];
        let (source, to, target) = (address(), address(), address());
        let mac = if self.rng.u8(..4) == 0 { NEIGHBOR.mac } else { SANDBOX.mac };
        let options = [SourceLinkAddress(mac), TargetLinkAddress(mac), Nonce([1; 6])];
        let options = &options[self.rng.usize(..3)..][..usize::from(self.rng.u8(..4) > 0)];
        let datagram = match self.rng.u8(..8) {
            0..3 => neighbor_messages::neighbor_solicitation(source, target, options),
            3 | 4 => neighbor_messages::neighbor_advertisement(source, to, target, options),
            5 => neighbor_messages::router_solicitation(source, options),
            6 => neighbor_messages::router_advertisement(source, options),
            _ => neighbor_messages::listener_report(
                source,
                neighbor_messages::solicited_node_group(target),
            ),
        };
        if self.rng.u8(..8) == 0 { datagram.with_hop_limit(self.rng.u8(..)) } else { datagram }
    }

    /// Returns the frame with changed header bytes, truncated, or padded.
    fn mutate_frame(&mut self, frame: EthernetFrame) -> EthernetFrame {
        let mut frame = frame;
        for _ in 0..self.rng.u8(..3) {
            let at = self.rng.usize(12..frame.bytes().len().min(90));
            frame = frame.with_bytes_at(at, &[self.rng.u8(..)]);
        }
        match self.rng.u8(..4) {
            0 => frame.clone().truncated(self.rng.usize(14..=frame.bytes().len())),
            1 => frame.padded(&[0x3c; 30][..self.rng.usize(..30)]),
            _ => frame,
        }
    }

    fn random_port(&mut self) -> u16 {
        PORTS[self.rng.usize(..PORTS.len())]
    }

    fn random_flags(&mut self) -> TcpFlags {
        TcpFlags(FLAGS[self.rng.usize(..FLAGS.len())])
    }
}
