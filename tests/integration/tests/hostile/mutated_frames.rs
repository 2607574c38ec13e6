//! Mutations of a frame that a careless parser would misinterpret.

use std::net::IpAddr;

use etherparse::Ipv4Header;
use fastrand::Rng;
use policy_testbed::packets::{
    ETHERNET_HEADER_LEN, EthernetFrame, ExtensionHeader, IpDatagram, IpPayload, TcpFlags,
    test_hosts::{METADATA_SERVICE, SANDBOX, SERVER},
};

/// The maximum frame length of an interface, with the Ethernet header.
const MAX_FRAME_BYTES: usize = ETHERNET_HEADER_LEN + 1_500;

/// Protocols that encapsulate packets, by number and by the bytes before the inner packet: IP in
/// IP, IPv6 in IP, GRE with either, ESP, and Ethernet over IP.
const TUNNEL_PROTOCOLS: [(u8, &[u8]); 7] = [
    (4, &[]),
    (41, &[]),
    (47, &[0, 0, 0x08, 0x00]),
    (47, &[0, 0, 0x86, 0xdd]),
    (47, &[0x30, 0, 0x65, 0x58, 0, 0, 0, 1, 0, 0, 0, 2]),
    (50, &[0, 0, 0, 1, 0, 0, 0, 1]),
    (97, &[0x30, 0]),
];

/// UDP ports of tunnels: Teredo, L2TP, VXLAN, Geneve, WireGuard, GUE.
const TUNNEL_PORTS: [u16; 6] = [3544, 1701, 4789, 6081, 51820, 6080];

/// Mutates frames at random.
pub(crate) struct FrameMutator {
    rng: Rng,
    previous_frame: EthernetFrame,
}

impl FrameMutator {
    /// Creates a mutator.
    pub(crate) fn new(rng: Rng) -> Self {
        Self { rng, previous_frame: EthernetFrame::from_bytes(&[0; 60]) }
    }

    /// Returns the frame or a mutation of it.
    pub(crate) fn mutate(&mut self, frame: EthernetFrame) -> EthernetFrame {
        let kept = frame.clone();
        let bent = match self.rng.u8(..12) {
            0 | 1 => self.rewrite_bytes(frame),
            2 => self.cut_frame(frame),
            3 => self.splice_frames(&frame),
            4 | 5 => self.wrap_in_tunnel(&frame),
            6 => self.falsify_lengths(frame),
            7 => self.pad_frame(frame),
            _ => frame,
        };
        self.previous_frame = kept;
        let bent = bent.truncated(MAX_FRAME_BYTES);
        // A wrong checksum would drop most frames before the mutation is judged.
        if self.rng.u8(..4) > 0 { fix_ipv4_checksum(bent) } else { bent }
    }

    /// Overwrites some bytes.
    fn rewrite_bytes(&mut self, mut frame: EthernetFrame) -> EthernetFrame {
        for _ in 0..self.rng.u8(1..9) {
            let at = self.rng.usize(..frame.bytes().len().min(120));
            let byte = match self.rng.u8(..4) {
                0 => 0,
                1 => 0xff,
                2 => frame.bytes()[at] ^ (1 << self.rng.u8(..8)),
                _ => self.rng.u8(..),
            };
            frame = frame.with_bytes_at(at, &[byte]);
        }
        frame
    }

    fn cut_frame(&mut self, frame: EthernetFrame) -> EthernetFrame {
        let length = frame.bytes().len();
        frame.truncated(self.rng.usize(ETHERNET_HEADER_LEN.min(length)..=length))
    }

    /// Joins the start of one frame and the end of another.
    fn splice_frames(&mut self, frame: &EthernetFrame) -> EthernetFrame {
        let (one, other) = (self.previous_frame.bytes(), frame.bytes());
        let (end, start) =
            (self.rng.usize(ETHERNET_HEADER_LEN..=one.len()), self.rng.usize(..other.len()));
        EthernetFrame::from_bytes(&[&one[..end], &other[start..]].concat())
    }

    /// Encapsulates the payload of the previous frame in this one's addresses: a valid packet
    /// around an invalid one, or the reverse.
    fn wrap_in_tunnel(&mut self, frame: &EthernetFrame) -> EthernetFrame {
        let inner = self.previous_frame.bytes().get(ETHERNET_HEADER_LEN..).unwrap_or_default();
        let Some(to) = frame_destination(frame) else { return frame.clone() };
        let source = if to.is_ipv4() { IpAddr::from(SANDBOX.v4) } else { SANDBOX.v6.into() };
        let payload = if self.rng.bool() {
            let (protocol, header) = TUNNEL_PROTOCOLS[self.rng.usize(..TUNNEL_PROTOCOLS.len())];
            IpPayload::raw(protocol, &[header, inner].concat())
        } else {
            let port = TUNNEL_PORTS[self.rng.usize(..TUNNEL_PORTS.len())];
            let header = [0x08, 0, 0, 0, 0, 0, 1, 0];
            IpPayload::udp(port, port, &[&header[..self.rng.usize(..=8)], inner].concat())
        };
        IpDatagram::new(source, to, payload).to_frame()
    }

    /// Changes length fields.
    fn falsify_lengths(&mut self, frame: EthernetFrame) -> EthernetFrame {
        let length = self.rng.u16(..).to_be_bytes();
        let small = u16::from(self.rng.u8(..)).to_be_bytes();
        let lie = if self.rng.bool() { length } else { small };
        match (frame.bytes().get(12..14), frame.bytes().len()) {
            (Some([0x08, 0x00]), 34..) if self.rng.bool() => {
                let words = self.rng.u8(..16);
                frame.with_bytes_at(ETHERNET_HEADER_LEN, &[0x40 | words])
            }
            (Some([0x08, 0x00]), 34..) => frame.with_bytes_at(ETHERNET_HEADER_LEN + 2, &lie),
            (Some([0x86, 0xdd]), 54..) => frame.with_bytes_at(ETHERNET_HEADER_LEN + 4, &lie),
            _ => frame,
        }
    }

    fn pad_frame(&mut self, frame: EthernetFrame) -> EthernetFrame {
        let padding = vec![self.rng.u8(..); self.rng.usize(..200)];
        frame.padded(&padding)
    }
}

/// The destination of the IP packet in a frame.
fn frame_destination(frame: &EthernetFrame) -> Option<IpAddr> {
    match frame.bytes().get(12..14)? {
        [0x08, 0x00] => Some(IpAddr::from(*frame.bytes().get(30..)?.first_chunk::<4>()?)),
        [0x86, 0xdd] => Some(IpAddr::from(*frame.bytes().get(38..)?.first_chunk::<16>()?)),
        _ => None,
    }
}

/// Corrects the checksum of an IPv4 header, if there is one.
fn fix_ipv4_checksum(frame: EthernetFrame) -> EthernetFrame {
    let is_v4 = frame.bytes().get(12..14) == Some(&[0x08, 0x00][..]);
    let header = frame.bytes().get(ETHERNET_HEADER_LEN..).map(Ipv4Header::from_slice);
    match header {
        Some(Ok((header, _))) if is_v4 => {
            let sum = header.calc_header_checksum().to_be_bytes();
            frame.with_bytes_at(ETHERNET_HEADER_LEN + 10, &sum)
        }
        _ => frame,
    }
}

/// Valid frames of every kind that a sandbox sends, to a server and to the metadata service.
pub(crate) fn valid_frames() -> Vec<EthernetFrame> {
    let v4 =
        [IpAddr::from(SERVER.v4), METADATA_SERVICE.into()].map(|to| (IpAddr::from(SANDBOX.v4), to));
    let v6 = (IpAddr::from(SANDBOX.v6), IpAddr::from(SERVER.v6));
    let mut frames = Vec::new();
    for (from, to) in [v4[0], v4[1], v6] {
        let payloads = [
            IpPayload::tcp(40_000, 443, TcpFlags::SYN),
            IpPayload::tcp(40_000, 443, TcpFlags::ACK).with_data(b"data"),
            IpPayload::udp(40_000, 53, b"data"),
            IpPayload::icmp_echo(to, false, 7, b"ping"),
            IpPayload::raw(132, &[7; 24]),
        ];
        frames.extend(payloads.map(|payload| IpDatagram::new(from, to, payload).to_frame()));
        let long = IpPayload::udp(40_000, 53, &[7; 64]);
        let whole = IpDatagram::new(from, to, long).with_identification(77);
        frames.extend([
            whole.clone().first_fragment(24).to_frame(),
            whole.last_fragment(24).to_frame(),
        ]);
    }
    let (from, to) = v6;
    let chained = IpDatagram::new(from, to, IpPayload::udp(40_000, 53, b"data"));
    let chained = chained.with_extension(ExtensionHeader::hop_by_hop());
    frames.push(chained.with_extension(ExtensionHeader::destination_options(2)).to_frame());
    frames
}
