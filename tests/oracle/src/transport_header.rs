//! Line 1 of the precedence for transports: a packet must contain its whole transport header.

use crate::OracleReason;

use super::ip_header::{FragmentPart, IpHeader};

pub(crate) const PROTOCOL_ICMP: u8 = 1;
pub(crate) const PROTOCOL_TCP: u8 = 6;
pub(crate) const PROTOCOL_UDP: u8 = 17;
pub(crate) const PROTOCOL_ICMPV6: u8 = 58;

/// The minimum header length of a protocol; 0 where rules only match addresses.
pub(crate) fn min_header_length(protocol: u8) -> usize {
    match protocol {
        PROTOCOL_TCP => 20,
        PROTOCOL_UDP | PROTOCOL_ICMP | PROTOCOL_ICMPV6 => 8,
        _ => 0,
    }
}

/// Returns whether this is SCTP whose first chunk is INIT, or is missing.
pub(crate) fn opens_sctp_association(datagram: &IpHeader<'_>) -> bool {
    const PROTOCOL_SCTP: u8 = 132;
    const INIT: u8 = 1;
    let first_chunk = datagram.payload.get(12..16);
    datagram.protocol == PROTOCOL_SCTP && first_chunk.is_none_or(|chunk| chunk[0] == INIT)
}

/// A parsed transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransportHeader {
    Tcp {
        source: u16,
        destination: u16,
        flags: u8,
    },
    Udp {
        source: u16,
        destination: u16,
    },
    /// ICMP in IPv4, ICMPv6 in IPv6.
    Icmp {
        v6: bool,
        kind: u8,
        identifier: u16,
    },
    Other,
}

impl TransportHeader {
    /// Parses the header of a whole datagram or of a first fragment.
    pub(crate) fn parse(datagram: &IpHeader<'_>) -> Result<Self, OracleReason> {
        let bytes = datagram.payload;
        // A partial header means a truncated packet, or a header that continues in the next
        // fragment.
        let first = datagram.part == FragmentPart::First;
        let broken = if first { OracleReason::Fragment } else { OracleReason::Malformed };
        let word = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let v6 = datagram.is_v6();
        match datagram.protocol {
            PROTOCOL_TCP => {
                let whole = bytes.len() >= 20 && {
                    let length = usize::from(bytes[12] >> 4) * 4;
                    length >= 20 && length <= bytes.len()
                };
                let segment =
                    || Self::Tcp { source: word(0), destination: word(2), flags: bytes[13] };
                whole.then(segment).ok_or(broken)
            }
            PROTOCOL_UDP => {
                let whole = bytes.len() >= 8 && {
                    let length = usize::from(word(4));
                    length >= 8 && (first || length <= bytes.len())
                };
                whole.then(|| Self::Udp { source: word(0), destination: word(2) }).ok_or(broken)
            }
            protocol if protocol == if v6 { PROTOCOL_ICMPV6 } else { PROTOCOL_ICMP } => {
                let message = || Self::Icmp { v6, kind: bytes[0], identifier: word(4) };
                (bytes.len() >= 8).then(message).ok_or(broken)
            }
            _ => Ok(Self::Other),
        }
    }

    /// Returns whether this is a TCP SYN without ACK.
    pub(crate) fn opens_connection(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags & 0x12 == 0x02)
    }

    /// Returns whether this is a TCP FIN.
    pub(crate) fn is_tcp_fin(&self) -> bool {
        matches!(self, Self::Tcp { flags, .. } if flags & 0x01 != 0)
    }

    pub(crate) fn is_echo_request(&self) -> bool {
        matches!(
            self,
            Self::Icmp { v6: false, kind: 8, .. } | Self::Icmp { v6: true, kind: 128, .. }
        )
    }

    pub(crate) fn destination_port(&self) -> Option<u16> {
        match *self {
            Self::Tcp { destination, .. } | Self::Udp { destination, .. } => Some(destination),
            Self::Icmp { .. } | Self::Other => None,
        }
    }
}
