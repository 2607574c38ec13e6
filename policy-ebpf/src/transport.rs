//! Transport headers: ports, TCP flags, ICMP types. Line 1 requires them to be complete.

use policy_common::reason::Reason;

use crate::{
    ip_header::{FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP, IpHeader},
    packet_view::PacketView,
};

pub(crate) const TCP_HEADER_MIN_LEN: usize = 20;
pub(crate) const UDP_HEADER_LEN: usize = 8;
/// Offsets of the checksums.
pub(crate) const TCP_CHECKSUM_OFFSET: u32 = 16;
pub(crate) const UDP_CHECKSUM_OFFSET: u32 = 6;
const ICMP_HEADER_LEN: usize = 8;

pub(crate) const TCP_FIN: u8 = 0x01;
pub(crate) const TCP_SYN: u8 = 0x02;
pub(crate) const TCP_RST: u8 = 0x04;
pub(crate) const TCP_ACK: u8 = 0x10;

/// The fields of a transport header that are judged. Ports are in host byte order.
#[derive(Clone, Copy)]
pub(crate) struct TransportHeader {
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP: the flags.
    pub tcp_flags: u8,
    /// TCP: a SYN without ACK, which opens a connection.
    pub opens_connection: bool,
    /// ICMP: the type.
    pub icmp_type: u8,
    /// ICMP: the code.
    pub icmp_code: u8,
}

/// The transport header of a protocol without ports.
pub(crate) const EMPTY_TRANSPORT_HEADER: TransportHeader = TransportHeader {
    source_port: 0,
    destination_port: 0,
    tcp_flags: 0,
    opens_connection: false,
    icmp_type: 0,
    icmp_code: 0,
};

/// Parses the transport header of a whole datagram or of a first fragment, which must contain all
/// of it. Protocols without ports are judged by their addresses.
#[inline(always)]
pub(crate) fn parse_transport(
    packet: &PacketView,
    header: &IpHeader,
) -> Result<TransportHeader, Reason> {
    match header.protocol {
        IPPROTO_TCP => parse_tcp(packet, header),
        IPPROTO_UDP => parse_udp(packet, header),
        IPPROTO_ICMP if !header.is_v6 => parse_icmp(packet, header),
        IPPROTO_ICMPV6 if header.is_v6 => parse_icmp(packet, header),
        _ => Ok(EMPTY_TRANSPORT_HEADER),
    }
}

/// Whether a later fragment could overwrite the transport header of the first (RFC 3128).
#[inline(always)]
pub(crate) fn overlaps_transport_header(header: &IpHeader) -> bool {
    let minimum = match header.protocol {
        IPPROTO_TCP => TCP_HEADER_MIN_LEN,
        IPPROTO_UDP | IPPROTO_ICMP | IPPROTO_ICMPV6 => UDP_HEADER_LEN,
        _ => 0,
    };
    (header.fragment_offset as usize) < minimum
}

#[inline(always)]
fn parse_tcp(packet: &PacketView, header: &IpHeader) -> Result<TransportHeader, Reason> {
    let missing = missing_header_reason(header);
    let start = header.transport_offset;
    if start + TCP_HEADER_MIN_LEN > header.datagram_end {
        return Err(missing);
    }
    let bytes = packet.read_at::<[u8; TCP_HEADER_MIN_LEN]>(start).ok_or(missing)?;
    let length = usize::from(bytes[12] >> 4) * 4;
    if length < TCP_HEADER_MIN_LEN || start + length > header.datagram_end {
        return Err(missing);
    }
    Ok(TransportHeader {
        source_port: u16::from_be_bytes([bytes[0], bytes[1]]),
        destination_port: u16::from_be_bytes([bytes[2], bytes[3]]),
        tcp_flags: bytes[13],
        opens_connection: bytes[13] & (TCP_SYN | TCP_ACK) == TCP_SYN,
        ..EMPTY_TRANSPORT_HEADER
    })
}

#[inline(always)]
fn parse_udp(packet: &PacketView, header: &IpHeader) -> Result<TransportHeader, Reason> {
    let missing = missing_header_reason(header);
    if header.transport_offset + UDP_HEADER_LEN > header.datagram_end {
        return Err(missing);
    }
    let bytes = packet.read_at::<[u8; UDP_HEADER_LEN]>(header.transport_offset).ok_or(missing)?;
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let room = header.fragment_part == FragmentPart::FirstFragment
        || header.transport_offset + length <= header.datagram_end;
    if length < UDP_HEADER_LEN || !room {
        return Err(missing);
    }
    Ok(TransportHeader {
        source_port: u16::from_be_bytes([bytes[0], bytes[1]]),
        destination_port: u16::from_be_bytes([bytes[2], bytes[3]]),
        ..EMPTY_TRANSPORT_HEADER
    })
}

/// The identifier of an ICMP echo is stored as the requester's port.
#[inline(always)]
fn parse_icmp(packet: &PacketView, header: &IpHeader) -> Result<TransportHeader, Reason> {
    let missing = missing_header_reason(header);
    if header.transport_offset + ICMP_HEADER_LEN > header.datagram_end {
        return Err(missing);
    }
    let bytes = packet.read_at::<[u8; ICMP_HEADER_LEN]>(header.transport_offset).ok_or(missing)?;
    let identifier = u16::from_be_bytes([bytes[4], bytes[5]]);
    Ok(TransportHeader {
        source_port: identifier,
        icmp_type: bytes[0],
        icmp_code: bytes[1],
        ..EMPTY_TRANSPORT_HEADER
    })
}

/// A first fragment without its transport header is an evasion attempt.
#[inline(always)]
fn missing_header_reason(header: &IpHeader) -> Reason {
    if header.fragment_part == FragmentPart::FirstFragment {
        Reason::Fragment
    } else {
        Reason::Malformed
    }
}
