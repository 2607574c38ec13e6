//! Parses the fields of a received frame that the tests need.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packets::transport_checksum;

/// A frame with an IP packet. IPv4 options and IPv6 extension headers are not parsed: the payload
/// begins with them.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The IP protocol, or the number of the first extension header.
    pub protocol: u8,
    /// The bytes after the IP header.
    pub payload: &'a [u8],
}

impl<'a> PacketView<'a> {
    /// Parses the IP packet in a frame, if there is one.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        match frame.get(12..14)? {
            [0x08, 0x00] => Self::parse_v4(frame.get(14..)?),
            [0x86, 0xdd] => Self::parse_v6(frame.get(14..)?),
            _ => None,
        }
    }

    fn parse_v4(packet: &'a [u8]) -> Option<Self> {
        let address = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
        let total = u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]);
        Some(Self {
            source: address(12)?.into(),
            destination: address(16)?.into(),
            protocol: *packet.get(9)?,
            payload: packet.get(20..total.into())?,
        })
    }

    fn parse_v6(packet: &'a [u8]) -> Option<Self> {
        let address = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
        let length = u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]);
        Some(Self {
            source: address(8)?.into(),
            destination: address(24)?.into(),
            protocol: *packet.get(6)?,
            payload: packet.get(40..40 + usize::from(length))?,
        })
    }

    /// Returns whether the transport checksum is correct.
    pub fn has_valid_checksum(&self) -> bool {
        let sum = transport_checksum(self.source, self.destination, self.protocol, self.payload);
        matches!(sum, 0 | 0xffff)
    }

    /// The sum over the pseudo header, which is the content of the checksum field when the checksum
    /// is offloaded.
    pub fn pseudo_header_sum(&self) -> u16 {
        !transport_checksum(
            self.source,
            self.destination,
            self.protocol,
            &vec![0; self.payload.len()],
        )
    }

    /// Source and destination port.
    pub fn ports(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = *self.payload.first_chunk::<4>()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}
