//! Line 1 of the precedence for IP: invalid headers, options, chains of extension headers,
//! fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::OracleReason;

/// The longest chain of extension headers. RFC 8200 defines six.
const MAX_EXTENSION_HEADERS: usize = 6;

/// The part of a datagram that a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FragmentPart {
    Whole,
    First,
    /// A later fragment, which begins at this offset in bytes.
    Later(usize),
}

/// Identifies the fragments of one datagram.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FragmentKey {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

/// A parsed IP packet.
pub(crate) struct IpHeader<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hop_limit: u8,
    /// The protocol after all extension headers. For a later fragment, the one in its fragment
    /// header.
    pub protocol: u8,
    pub part: FragmentPart,
    /// Whether it is a whole datagram with a fragment header (RFC 6946).
    pub is_atomic: bool,
    pub identification: u32,
    /// The total length of the extension headers in bytes.
    pub extension_bytes: usize,
    pub payload: &'a [u8],
}

impl<'a> IpHeader<'a> {
    pub(crate) fn parse_v4(bytes: &'a [u8]) -> Result<Self, OracleReason> {
        let header = bytes.get(..20).ok_or(OracleReason::Malformed)?;
        let (version, words) = (header[0] >> 4, header[0] & 0x0f);
        if version != 4 || words < 5 {
            return Err(OracleReason::Malformed);
        }
        if words > 5 {
            return Err(OracleReason::IpOptions); // a source route would change the destination
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        // The frame may have padding after the datagram.
        let payload = bytes.get(20..total).ok_or(OracleReason::Malformed)?;
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        Ok(Self {
            source: v4_address([header[12], header[13], header[14], header[15]]),
            destination: v4_address([header[16], header[17], header[18], header[19]]),
            hop_limit: header[8],
            protocol: header[9],
            part: fragment_part(usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0),
            is_atomic: false,
            identification: u16::from_be_bytes([header[4], header[5]]).into(),
            extension_bytes: 0,
            payload,
        })
    }

    pub(crate) fn parse_v6(bytes: &'a [u8]) -> Result<Self, OracleReason> {
        let (header, behind) = bytes.split_at_checked(40).ok_or(OracleReason::Malformed)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = behind.get(..length).ok_or(OracleReason::Malformed)?;
        if header[0] >> 4 != 6 {
            return Err(OracleReason::Malformed);
        }
        let mut datagram = Self {
            source: v6_address(&header[8..24]),
            destination: v6_address(&header[24..40]),
            hop_limit: header[7],
            protocol: header[6],
            part: FragmentPart::Whole,
            is_atomic: false,
            identification: 0,
            extension_bytes: 0,
            payload,
        };
        datagram.walk_extensions()?;
        Ok(datagram)
    }

    /// Parses the extension headers. Stops at the data of a later fragment, which cannot be parsed.
    fn walk_extensions(&mut self) -> Result<(), OracleReason> {
        let (mut walked, mut fragmented) = (0, false);
        while let 0 | 43 | 44 | 51 | 60 = self.protocol {
            let header = self.payload.get(..8).ok_or(OracleReason::ExtensionHeaders)?;
            if walked == MAX_EXTENSION_HEADERS {
                return Err(OracleReason::ExtensionHeaders);
            }
            let length = match self.protocol {
                43 => return Err(OracleReason::IpOptions), // a routing header changes the destination
                44 => 8,
                // The length is in 4-octet words minus 2; in IPv6 a multiple of 8 octets (RFC 4302,
                // 2.2).
                51 => (usize::from(header[1]) + 2) * 4,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            if self.protocol == 44 {
                if fragmented {
                    return Err(OracleReason::ExtensionHeaders);
                }
                fragmented = true;
                self.read_fragment_header(header);
            }
            self.protocol = header[0];
            if self.part == FragmentPart::First && matches!(self.protocol, 0 | 43 | 51 | 60) {
                // A longer chain in a later fragment would overwrite the transport header.
                return Err(OracleReason::Fragment);
            }
            let behind = self.payload.get(length..).filter(|_| length % 8 == 0);
            self.payload = behind.ok_or(OracleReason::ExtensionHeaders)?;
            self.extension_bytes += length;
            walked += 1;
            if matches!(self.part, FragmentPart::Later(_)) {
                break;
            }
        }
        Ok(())
    }

    fn read_fragment_header(&mut self, header: &[u8]) {
        let field = u16::from_be_bytes([header[2], header[3]]);
        self.part = fragment_part(usize::from(field & !7), field & 1 != 0);
        self.is_atomic = self.part == FragmentPart::Whole;
        self.identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    }

    /// Returns the key that all fragments of this datagram share.
    pub(crate) fn fragment_key(&self) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            identification: self.identification,
        }
    }

    pub(crate) fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }
}

fn fragment_part(offset: usize, more: bool) -> FragmentPart {
    match (offset, more) {
        (0, false) => FragmentPart::Whole,
        (0, true) => FragmentPart::First,
        _ => FragmentPart::Later(offset),
    }
}

fn v4_address(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

/// Converts 16 octets to an address.
pub(crate) fn v6_address(octets: &[u8]) -> IpAddr {
    let octets = <[u8; 16]>::try_from(octets).expect("sixteen octets");
    Ipv6Addr::from(octets).into()
}
