//! IPv4 and IPv6 datagrams and their fragments.

use std::net::IpAddr;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header};

use super::{EthernetFrame, ExtensionHeader, IpPayload};

/// The range of a fragment: start and end in bytes, and whether more fragments follow.
#[derive(Clone, Copy, Debug)]
struct FragmentRange {
    start: usize,
    end: usize,
    more_fragments: bool,
}

/// An IP datagram or a fragment of one.
#[derive(Clone, Debug)]
pub struct IpDatagram {
    /// The source address.
    pub source: IpAddr,
    /// The destination address, of the same family.
    pub destination: IpAddr,
    payload: IpPayload,
    hops: u8,
    identification: u32,
    options: Vec<u8>,
    extensions: Vec<ExtensionHeader>,
    fragment: Option<FragmentRange>,
}

impl IpDatagram {
    /// A whole datagram.
    pub fn new(
        source: impl Into<IpAddr>,
        destination: impl Into<IpAddr>,
        payload: IpPayload,
    ) -> Self {
        Self {
            source: source.into(),
            destination: destination.into(),
            payload,
            hops: 64,
            identification: 0x2a2a,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
        }
    }

    /// Sets the time to live or hop limit.
    pub fn with_hop_limit(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Sets the identification of fragments.
    pub fn with_identification(mut self, identification: u32) -> Self {
        self.identification = identification;
        self
    }

    /// Sets IPv4 options. Their length is a multiple of four bytes.
    pub fn with_options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// Appends an IPv6 extension header.
    pub fn with_extension(mut self, extension: ExtensionHeader) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Keeps the bytes of the payload up to `end`, with more fragments to follow.
    pub fn first_fragment(self, end: usize) -> Self {
        self.fragment(0, end, true)
    }

    /// Keeps the bytes of the payload from `start`.
    pub fn last_fragment(self, start: usize) -> Self {
        let end = self.payload.bytes.len();
        self.fragment(start, end, false)
    }

    /// Keeps the bytes of the payload from `start` to `end`.
    pub fn fragment(mut self, start: usize, end: usize, more: bool) -> Self {
        self.fragment = Some(FragmentRange { start, end, more_fragments: more });
        self
    }

    /// The bytes of the packet, from the IP header on.
    pub fn to_packet(&self) -> Vec<u8> {
        let whole = self.payload.with_checksum(self.source, self.destination);
        let carried = self.fragment.map_or(&whole[..], |part| &whole[part.start..part.end]);
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                self.build_v4(source.octets(), destination.octets(), carried)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                self.build_v6(source.octets(), destination.octets(), carried)
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
    }

    /// The frame from the sandbox to its gateway.
    pub fn to_frame(&self) -> EthernetFrame {
        EthernetFrame::new(if self.source.is_ipv4() { 0x0800 } else { 0x86dd }, &self.to_packet())
    }

    fn build_v4(&self, source: [u8; 4], destination: [u8; 4], carried: &[u8]) -> Vec<u8> {
        let length = u16::try_from(carried.len()).expect("fits into a datagram");
        let protocol = IpNumber(self.payload.protocol);
        let mut header = Ipv4Header::new(length, self.hops, protocol, source, destination)
            .expect("fits into a datagram");
        header.options = Ipv4Options::try_from(&self.options[..]).expect("fit into a header");
        header.set_payload_len(carried.len()).expect("fits into a datagram");
        header.identification = (self.identification & 0xffff) as u16;
        header.dont_fragment = self.fragment.is_none();
        if let Some(part) = self.fragment {
            header.more_fragments = part.more_fragments;
            header.fragment_offset =
                IpFragOffset::try_new(offset_units(part.start)).expect("in range");
        }
        header.header_checksum = header.calc_header_checksum();
        [&header.to_bytes()[..], carried].concat()
    }

    fn build_v6(&self, source: [u8; 16], destination: [u8; 16], carried: &[u8]) -> Vec<u8> {
        let mut chain = self.extensions.clone();
        if let Some(part) = self.fragment {
            let offset = offset_units(part.start) * 8;
            chain.push(ExtensionHeader::fragment(offset, part.more_fragments, self.identification));
        }
        let mut next = self.payload.protocol;
        let mut behind = carried.to_vec();
        for mut extension in chain.into_iter().rev() {
            extension.bytes[0] = next;
            next = extension.protocol;
            behind.splice(0..0, extension.bytes);
        }
        let header = Ipv6Header {
            payload_length: u16::try_from(behind.len()).expect("fits into a datagram"),
            next_header: IpNumber(next),
            hop_limit: self.hops,
            source,
            destination,
            ..Ipv6Header::default()
        };
        [&header.to_bytes()[..], &behind].concat()
    }
}

/// Converts an offset to units of eight bytes.
fn offset_units(start: usize) -> u16 {
    assert!(start.is_multiple_of(8), "fragments begin at multiples of eight bytes");
    u16::try_from(start / 8).expect("fits into a datagram")
}

impl From<IpDatagram> for EthernetFrame {
    fn from(datagram: IpDatagram) -> Self {
        datagram.to_frame()
    }
}
