//! Random packets: many that rules are about, some about remembered state, some broken.

use std::net::IpAddr;

use fastrand::Rng;
use ipnet::IpNet;

use super::addresses;
use crate::{
    kernel::Origin,
    packet::{
        Datagram, Extension, Frame, Payload, TcpFlags,
        arp::Arp,
        cast::{GATEWAY, NEIGHBOUR, SANDBOX, SANDBOX_LINK_LOCAL, SANDBOX_TOO},
        discovery::{
            self,
            Option::{Nonce, Source, Target},
        },
    },
};

const PORTS: [u16; 6] = [22, 53, 80, 443, 4000, 40_000];
const FLAGS: [u8; 8] = [0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x00, 0xc2];

/// A packet and which way it goes.
pub enum Packet {
    /// From the sandbox.
    Out(Frame),
    /// Towards the sandbox.
    In(Frame, Origin),
}

/// Makes packets; remembers some of those it made, so that later ones can refer to them.
pub struct Packets<'a> {
    rng: &'a mut Rng,
    nets: &'a [IpNet],
    /// Towards the sandbox: from, from port, to port.
    inbound: Vec<(IpAddr, u16, u16)>,
    /// Fragmented datagrams.
    fragmented: Vec<Datagram>,
}

impl<'a> Packets<'a> {
    /// Packets to addresses near these prefixes.
    pub fn near(nets: &'a [IpNet], rng: &'a mut Rng) -> Self {
        Self { rng, nets, inbound: Vec::new(), fragmented: Vec::new() }
    }

    /// The next packet.
    pub fn draw(&mut self) -> Packet {
        let frame = match self.rng.u8(..16) {
            0 | 1 => return self.inbound(),
            2 | 3 => self.answer().frame(),
            4 => self.arp().frame(),
            5 => self.discovery().frame(),
            6 | 7 => self.fragment().frame(),
            _ => self.datagram().frame(),
        };
        Packet::Out(match self.rng.u8(..16) {
            0 | 1 => self.mutated(frame),
            2 => frame.from_mac(NEIGHBOUR.mac),
            3 => frame.tagged(0x8100, 5),
            _ => frame,
        })
    }

    fn datagram(&mut self) -> Datagram {
        let to = addresses::near(self.rng, self.nets);
        let payload = self.payload(to);
        let datagram = Datagram::new(self.source(to), to, payload);
        if to.is_ipv6() && self.rng.u8(..4) == 0 {
            self.behind_extensions(datagram)
        } else {
            datagram
        }
    }

    fn payload(&mut self, to: IpAddr) -> Payload {
        let (from_port, to_port) = (self.port(), self.port());
        match self.rng.u8(..10) {
            0..4 => Payload::tcp(from_port, to_port, self.flags()),
            4..7 => Payload::udp(from_port, to_port, b"data"),
            7 => Payload::echo(to, self.rng.bool(), self.rng.u16(..4), b"ping"),
            8 => Payload::icmpv6(self.rng.u8(..), 0, [0; 4], &[0; 20]),
            _ => Payload::raw(self.rng.u8(..), &[self.rng.u8(..); 24]),
        }
    }

    /// One of the sandbox's addresses, or another's.
    fn source(&mut self, to: IpAddr) -> IpAddr {
        match (to, self.rng.u8(..20)) {
            (IpAddr::V4(_), 0) => NEIGHBOUR.v4.into(),
            (IpAddr::V4(_), 1..4) => SANDBOX_TOO.into(),
            (IpAddr::V4(_), _) => SANDBOX.v4.into(),
            (IpAddr::V6(_), 0) => NEIGHBOUR.v6.into(),
            (IpAddr::V6(_), 1) => SANDBOX_LINK_LOCAL.into(),
            (IpAddr::V6(_), _) => SANDBOX.v6.into(),
        }
    }

    fn behind_extensions(&mut self, mut datagram: Datagram) -> Datagram {
        for _ in 0..self.rng.u8(1..8) {
            datagram = datagram.behind(match self.rng.u8(..12) {
                0..4 => Extension::hop_by_hop(),
                4..8 => Extension::destination_options(self.rng.u8(1..4)),
                8 | 9 => Extension::authentication(),
                10 => {
                    Extension::fragment(self.rng.u16(..3) * 8, self.rng.bool(), self.rng.u32(..3))
                }
                _ => Extension::routing(),
            });
        }
        datagram
    }

    fn fragment(&mut self) -> Datagram {
        let known = self.fragmented.len();
        let datagram = if known > 0 && self.rng.u8(..3) > 0 {
            self.fragmented[self.rng.usize(..known)].clone()
        } else {
            let to = addresses::near(self.rng, self.nets);
            let payload = self.payload(to).data(&[0x86; 80]);
            Datagram::new(self.source(to), to, payload).identified(self.rng.u32(..4))
        };
        self.fragmented.push(datagram.clone());
        let (start, units) = (self.rng.usize(..5), self.rng.usize(..5));
        let start = if self.rng.bool() { 0 } else { start * 8 };
        datagram.part(start, start + units * 8, start == 0 || self.rng.bool())
    }

    /// Something towards the sandbox, from the host or from elsewhere.
    fn inbound(&mut self) -> Packet {
        let from = if self.rng.u8(..4) == 0 {
            GATEWAY.v4.into()
        } else {
            addresses::near(self.rng, self.nets)
        };
        let (from_port, to_port) = (self.port(), self.port());
        self.inbound.push((from, from_port, to_port));
        let to = if from.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
        let payload = match self.rng.u8(..8) {
            0..4 => Payload::syn(from_port, to_port),
            4 => Payload::tcp(from_port, to_port, self.flags()),
            5 | 6 => Payload::udp(from_port, to_port, b"data"),
            _ => Payload::echo(from, false, from_port, b"ping"),
        };
        let mut frame = Datagram::new(from, to, payload).frame();
        if self.rng.u8(..8) == 0 {
            frame = self.mutated(frame);
        }
        let origin = if self.rng.u8(..3) == 0 { Origin::Host } else { Origin::Elsewhere };
        Packet::In(frame, origin)
    }

    /// What the sandbox could say to somebody who sent it something.
    fn answer(&mut self) -> Datagram {
        let known = self.inbound.len();
        if known == 0 {
            return self.datagram();
        }
        let (remote, remote_port, port) = self.inbound[self.rng.usize(..known)];
        let local = if remote.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
        let payload = match self.rng.u8(..8) {
            0..4 => Payload::tcp(port, remote_port, self.flags()),
            4 | 5 => Payload::udp(port, remote_port, b"data"),
            6 => Payload::echo(remote, true, remote_port, b"ping"),
            _ => {
                let received = Payload::tcp(remote_port, port, TcpFlags::ACK);
                Payload::unreachable(remote, &Datagram::new(remote, local, received).packet())
            }
        };
        Datagram::new(local, remote, payload)
    }

    fn arp(&mut self) -> Arp {
        let macs = [SANDBOX.mac, SANDBOX.mac, NEIGHBOUR.mac];
        let addresses = [SANDBOX.v4, SANDBOX_TOO, NEIGHBOUR.v4, [0; 4].into()];
        let mut end = || (macs[self.rng.usize(..3)], addresses[self.rng.usize(..4)]);
        let (sender, target) = (end(), end());
        Arp { operation: self.rng.u16(..4), sender, target }
    }

    fn discovery(&mut self) -> Datagram {
        let addresses = [SANDBOX.v6, SANDBOX_LINK_LOCAL, NEIGHBOUR.v6, GATEWAY.v6, [0; 16].into()];
        let mut address = || addresses[self.rng.usize(..5)];
        let (source, to, target) = (address(), address(), address());
        let mac = if self.rng.u8(..4) == 0 { NEIGHBOUR.mac } else { SANDBOX.mac };
        let options = [Source(mac), Target(mac), Nonce([1; 6])];
        let options = &options[self.rng.usize(..3)..][..usize::from(self.rng.u8(..4) > 0)];
        let datagram = match self.rng.u8(..8) {
            0..3 => discovery::solicitation(source, target, options),
            3 | 4 => discovery::advertisement(source, to, target, options),
            5 => discovery::router_solicitation(source, options),
            6 => discovery::router_advertisement(source, options),
            _ => discovery::listener_report(source, discovery::solicited_node(target)),
        };
        if self.rng.u8(..8) == 0 { datagram.hops(self.rng.u8(..)) } else { datagram }
    }

    /// The frame with some of its header bytes changed, or cut, or padded.
    fn mutated(&mut self, frame: Frame) -> Frame {
        let mut frame = frame;
        for _ in 0..self.rng.u8(..3) {
            let at = self.rng.usize(12..frame.bytes().len().min(90));
            frame = frame.with(at, &[self.rng.u8(..)]);
        }
        match self.rng.u8(..4) {
            0 => frame.clone().cut(self.rng.usize(14..=frame.bytes().len())),
            1 => frame.padded(&[0x3c; 30][..self.rng.usize(..30)]),
            _ => frame,
        }
    }

    fn port(&mut self) -> u16 {
        PORTS[self.rng.usize(..PORTS.len())]
    }

    fn flags(&mut self) -> TcpFlags {
        TcpFlags(FLAGS[self.rng.usize(..FLAGS.len())])
    }
}
