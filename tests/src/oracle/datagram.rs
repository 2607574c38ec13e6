//! Line 1 for IP: headers that do not fit, options, chains of extension headers, fragments.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use policy_common::reason::Reason;

/// The longest chain of extension headers: RFC 8200 names six.
const MAX_EXTENSIONS: usize = 6;

/// Which part of a datagram a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    First,
    /// Begins at this offset in bytes.
    Later(usize),
}

/// What tells fragmented datagrams apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fragment {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    identification: u32,
}

/// An IP packet.
pub struct Datagram<'a> {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub hops: u8,
    /// The protocol behind all extension headers; of a later fragment, what its fragment header
    /// says.
    pub protocol: u8,
    pub part: Part,
    /// All of it, behind a fragment header (RFC 6946).
    pub atomic: bool,
    pub identification: u32,
    /// Bytes of extension headers.
    pub extensions: usize,
    pub payload: &'a [u8],
}

impl<'a> Datagram<'a> {
    pub fn v4(bytes: &'a [u8]) -> Result<Self, Reason> {
        let header = bytes.get(..20).ok_or(Reason::Malformed)?;
        let (version, words) = (header[0] >> 4, header[0] & 0x0f);
        if version != 4 || words < 5 {
            return Err(Reason::Malformed);
        }
        if words > 5 {
            return Err(Reason::IpOptions); // a source route among them would change the way
        }
        let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
        // What follows the datagram in the frame is padding.
        let payload = bytes.get(20..total).ok_or(Reason::Malformed)?;
        let fragment = u16::from_be_bytes([header[6], header[7]]);
        Ok(Self {
            source: v4([header[12], header[13], header[14], header[15]]),
            destination: v4([header[16], header[17], header[18], header[19]]),
            hops: header[8],
            protocol: header[9],
            part: part(usize::from(fragment & 0x1fff) * 8, fragment & 0x2000 != 0),
            atomic: false,
            identification: u16::from_be_bytes([header[4], header[5]]).into(),
            extensions: 0,
            payload,
        })
    }

    pub fn v6(bytes: &'a [u8]) -> Result<Self, Reason> {
        let (header, behind) = bytes.split_at_checked(40).ok_or(Reason::Malformed)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let payload = behind.get(..length).ok_or(Reason::Malformed)?;
        if header[0] >> 4 != 6 {
            return Err(Reason::Malformed);
        }
        let mut datagram = Self {
            source: v6(&header[8..24]),
            destination: v6(&header[24..40]),
            hops: header[7],
            protocol: header[6],
            part: Part::Whole,
            atomic: false,
            identification: 0,
            extensions: 0,
            payload,
        };
        datagram.walk()?;
        Ok(datagram)
    }

    /// Takes the extension headers off, up to a later fragment's data, which is not readable.
    fn walk(&mut self) -> Result<(), Reason> {
        let (mut walked, mut fragmented) = (0, false);
        while let 0 | 43 | 44 | 51 | 60 = self.protocol {
            let header = self.payload.get(..8).ok_or(Reason::ExtensionHeaders)?;
            if walked == MAX_EXTENSIONS {
                return Err(Reason::ExtensionHeaders);
            }
            let length = match self.protocol {
                43 => return Err(Reason::IpOptions), // a routing header changes the way
                44 => 8,
                // Words of four, less two; in IPv6 a multiple of eight (RFC 4302, 2.2).
                51 => (usize::from(header[1]) + 2) * 4,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            if self.protocol == 44 {
                if fragmented {
                    return Err(Reason::ExtensionHeaders);
                }
                fragmented = true;
                self.fragment_header(header);
            }
            self.protocol = header[0];
            if self.part == Part::First && matches!(self.protocol, 0 | 43 | 51 | 60) {
                // A longer chain in a later fragment would write over the transport header.
                return Err(Reason::Fragment);
            }
            let behind = self.payload.get(length..).filter(|_| length % 8 == 0);
            self.payload = behind.ok_or(Reason::ExtensionHeaders)?;
            self.extensions += length;
            walked += 1;
            if matches!(self.part, Part::Later(_)) {
                break;
            }
        }
        Ok(())
    }

    fn fragment_header(&mut self, header: &[u8]) {
        let field = u16::from_be_bytes([header[2], header[3]]);
        self.part = part(usize::from(field & !7), field & 1 != 0);
        self.atomic = self.part == Part::Whole;
        self.identification = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    }

    /// What the fragments of this datagram have in common.
    pub fn fragment(&self) -> Fragment {
        Fragment {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol,
            identification: self.identification,
        }
    }

    pub fn is_v6(&self) -> bool {
        self.source.is_ipv6()
    }
}

fn part(offset: usize, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later(offset),
    }
}

fn v4(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

/// Sixteen octets as an address.
pub fn v6(octets: &[u8]) -> IpAddr {
    let octets = <[u8; 16]>::try_from(octets).expect("sixteen octets");
    Ipv6Addr::from(octets).into()
}
