//! Ways to bend a frame, so that a judge who looks too short takes it for another.

use std::net::IpAddr;

use etherparse::Ipv4Header;
use fastrand::Rng;
use policy_tests::packet::{
    Datagram, ETHERNET, Extension, Frame, Payload, TcpFlags,
    cast::{METADATA, SANDBOX, SERVER},
};

/// What an interface takes, Ethernet's header included.
const LONGEST: usize = ETHERNET + 1_500;

/// Protocols that carry other packets, by number and what stands before those: IP in IP, IPv6 in IP,
/// GRE with either, ESP, and Ethernet over IP.
const TUNNELS: [(u8, &[u8]); 7] = [
    (4, &[]),
    (41, &[]),
    (47, &[0, 0, 0x08, 0x00]),
    (47, &[0, 0, 0x86, 0xdd]),
    (47, &[0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2]),
    (50, &[0, 0, 0, 1, 0, 0, 0, 1]),
    (97, &[0x30, 0]),
];

/// UDP ports that tunnels have: Teredo, L2TP, VXLAN, Geneve, WireGuard, GUE.
const TUNNEL_PORTS: [u16; 6] = [3544, 1701, 4789, 6081, 51820, 6080];

/// Bends frames at random.
pub struct Bent {
    rng: Rng,
    before: Frame,
}

impl Bent {
    /// A source of bends.
    pub fn new(rng: Rng) -> Self {
        Self { rng, before: Frame::of(&[0; 60]) }
    }

    /// The frame, or something that was made of it.
    pub fn bend(&mut self, frame: Frame) -> Frame {
        let kept = frame.clone();
        let bent = match self.rng.u8(..12) {
            0 | 1 => self.rewritten(frame),
            2 => self.cut(frame),
            3 => self.spliced(&frame),
            4 | 5 => self.tunnelled(&frame),
            6 => self.with_lying_lengths(frame),
            7 => self.padded(frame),
            _ => frame,
        };
        self.before = kept;
        let bent = bent.cut(LONGEST);
        // A wrong sum would end most of them before anybody judges what else is wrong.
        if self.rng.u8(..4) > 0 { summed(bent) } else { bent }
    }

    /// Some bytes are others.
    fn rewritten(&mut self, mut frame: Frame) -> Frame {
        for _ in 0..self.rng.u8(1..9) {
            let at = self.rng.usize(..frame.bytes().len().min(120));
            let byte = match self.rng.u8(..4) {
                0 => 0,
                1 => 0xff,
                2 => frame.bytes()[at] ^ (1 << self.rng.u8(..8)),
                _ => self.rng.u8(..),
            };
            frame = frame.with(at, &[byte]);
        }
        frame
    }

    fn cut(&mut self, frame: Frame) -> Frame {
        let length = frame.bytes().len();
        frame.cut(self.rng.usize(ETHERNET.min(length)..=length))
    }

    /// The beginning of one frame and the end of another.
    fn spliced(&mut self, frame: &Frame) -> Frame {
        let (one, other) = (self.before.bytes(), frame.bytes());
        let (end, start) = (self.rng.usize(ETHERNET..=one.len()), self.rng.usize(..other.len()));
        Frame::of(&[&one[..end], &other[start..]].concat())
    }

    /// What the frame before carried, within this one's addresses: a good packet around a bad one, or
    /// the other way round.
    fn tunnelled(&mut self, frame: &Frame) -> Frame {
        let inner = self.before.bytes().get(ETHERNET..).unwrap_or_default();
        let Some(to) = destination(frame) else { return frame.clone() };
        let source = if to.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
        let payload = if self.rng.bool() {
            let (protocol, header) = TUNNELS[self.rng.usize(..TUNNELS.len())];
            Payload::raw(protocol, &[header, inner].concat())
        } else {
            let port = TUNNEL_PORTS[self.rng.usize(..TUNNEL_PORTS.len())];
            let header = [0x08, 0, 0, 0, 0, 0, 1, 0];
            Payload::udp(port, port, &[&header[..self.rng.usize(..=8)], inner].concat())
        };
        Datagram::new(source, to, payload).frame()
    }

    /// Its length fields say something else.
    fn with_lying_lengths(&mut self, frame: Frame) -> Frame {
        let length = self.rng.u16(..).to_be_bytes();
        let small = u16::from(self.rng.u8(..)).to_be_bytes();
        let lie = if self.rng.bool() { length } else { small };
        match (frame.bytes().get(12..14), frame.bytes().len()) {
            (Some([0x08, 0x00]), 34..) if self.rng.bool() => {
                let words = self.rng.u8(..16);
                frame.with(ETHERNET, &[0x40 | words])
            }
            (Some([0x08, 0x00]), 34..) => frame.with(ETHERNET + 2, &lie),
            (Some([0x86, 0xdd]), 54..) => frame.with(ETHERNET + 4, &lie),
            _ => frame,
        }
    }

    fn padded(&mut self, frame: Frame) -> Frame {
        let padding = vec![self.rng.u8(..); self.rng.usize(..200)];
        frame.padded(&padding)
    }
}

/// Where an IP packet in a frame says that it goes.
fn destination(frame: &Frame) -> Option<IpAddr> {
    match frame.bytes().get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(*frame.bytes().get(30..)?.first_chunk::<4>()?)),
        [0x86, 0xdd] => Some(IpAddr::from(*frame.bytes().get(38..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// With the right checksum of an IPv4 header, if there is one.
fn summed(frame: Frame) -> Frame {
    let is_v4 = frame.bytes().get(12..14) == Some(&[0x08, 0x00][..]);
    let header = frame.bytes().get(ETHERNET..).map(Ipv4Header::from_slice);
    match header {
        Some(Ok((header, _))) if is_v4 => {
            let sum = header.calc_header_checksum().to_be_bytes();
            frame.with(ETHERNET + 10, &sum)
        }
        _ => frame,
    }
}

/// Valid frames of every kind that a sandbox sends, to a server and to the metadata service.
pub fn valid() -> Vec<Frame> {
    let v4 = [IpAddr::from(SERVER.v4), METADATA.into()].map(|to| (IpAddr::from(SANDBOX.v4), to));
    let v6 = (IpAddr::from(SANDBOX.v6), IpAddr::from(SERVER.v6));
    let mut frames = Vec::new();
    for (from, to) in [v4[0], v4[1], v6] {
        let payloads = [
            Payload::tcp(40_000, 443, TcpFlags::SYN),
            Payload::tcp(40_000, 443, TcpFlags::ACK).data(b"data"),
            Payload::udp(40_000, 53, b"data"),
            Payload::echo(to, false, 7, b"ping"),
            Payload::raw(132, &[7; 24]),
        ];
        frames.extend(payloads.map(|payload| Datagram::new(from, to, payload).frame()));
        let long = Payload::udp(40_000, 53, &[7; 64]);
        let whole = Datagram::new(from, to, long).identified(77);
        frames.extend([whole.clone().first(24).frame(), whole.last(24).frame()]);
    }
    let (from, to) = v6;
    let chained = Datagram::new(from, to, Payload::udp(40_000, 53, b"data"));
    let chained = chained.behind(Extension::hop_by_hop());
    frames.push(chained.behind(Extension::destination_options(2)).frame());
    frames
}
