//! Transport headers: ports, TCP flags, ICMP types. Line 1 demands that they are there to be judged.

use policy_common::reason::Reason;

use crate::{
    header::{Header, ICMP, ICMPV6, Part, TCP, UDP},
    packet::Packet,
};

const TCP_MIN: usize = 20;
const UDP_MIN: usize = 8;
const ICMP_MIN: usize = 8;

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What of a transport header is judged. Ports in host byte order.
#[derive(Clone, Copy)]
pub struct Transport {
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP: a SYN without ACK, the start of a connection.
    pub opens: bool,
    /// ICMP: the type.
    pub kind: u8,
    /// ICMP: the code.
    pub code: u8,
}

/// The transport header of a protocol without ports.
pub const NONE: Transport =
    Transport { source_port: 0, destination_port: 0, opens: false, kind: 0, code: 0 };

/// The transport header of a whole datagram or of a first fragment, which has to hold all of it.
/// Protocols without ports are judged by their addresses.
#[inline(always)]
pub fn read(packet: &Packet, header: &Header) -> Result<Transport, Reason> {
    match header.protocol {
        TCP => tcp(packet, header),
        UDP => udp(packet, header),
        ICMP if !header.v6 => icmp(packet, header),
        ICMPV6 if header.v6 => icmp(packet, header),
        _ => Ok(NONE),
    }
}

/// Whether a later fragment could write over the transport header of its first (RFC 3128).
#[inline(always)]
pub fn overlaps(header: &Header) -> bool {
    let minimum = match header.protocol {
        TCP => TCP_MIN,
        UDP | ICMP | ICMPV6 => UDP_MIN,
        _ => 0,
    };
    (header.offset as usize) < minimum
}

#[inline(always)]
fn tcp(packet: &Packet, header: &Header) -> Result<Transport, Reason> {
    let missing = missing(header);
    let start = header.transport;
    if start + TCP_MIN > header.end {
        return Err(missing);
    }
    let bytes = packet.read::<[u8; TCP_MIN]>(start).ok_or(missing)?;
    let length = usize::from(bytes[12] >> 4) * 4;
    if length < TCP_MIN || start + length > header.end {
        return Err(missing);
    }
    Ok(Transport {
        source_port: u16::from_be_bytes([bytes[0], bytes[1]]),
        destination_port: u16::from_be_bytes([bytes[2], bytes[3]]),
        opens: bytes[13] & (SYN | ACK) == SYN,
        ..NONE
    })
}

#[inline(always)]
fn udp(packet: &Packet, header: &Header) -> Result<Transport, Reason> {
    let missing = missing(header);
    if header.transport + UDP_MIN > header.end {
        return Err(missing);
    }
    let bytes = packet.read::<[u8; UDP_MIN]>(header.transport).ok_or(missing)?;
    let length = usize::from(u16::from_be_bytes([bytes[4], bytes[5]]));
    let room = header.part == Part::First || header.transport + length <= header.end;
    if length < UDP_MIN || !room {
        return Err(missing);
    }
    Ok(Transport {
        source_port: u16::from_be_bytes([bytes[0], bytes[1]]),
        destination_port: u16::from_be_bytes([bytes[2], bytes[3]]),
        ..NONE
    })
}

/// The identifier of an ICMP echo stands for the port of the side that asks.
#[inline(always)]
fn icmp(packet: &Packet, header: &Header) -> Result<Transport, Reason> {
    let missing = missing(header);
    if header.transport + ICMP_MIN > header.end {
        return Err(missing);
    }
    let bytes = packet.read::<[u8; ICMP_MIN]>(header.transport).ok_or(missing)?;
    let identifier = u16::from_be_bytes([bytes[4], bytes[5]]);
    Ok(Transport { source_port: identifier, kind: bytes[0], code: bytes[1], ..NONE })
}

/// A first fragment without its transport header hides it on purpose.
#[inline(always)]
fn missing(header: &Header) -> Reason {
    if header.part == Part::First { Reason::Fragment } else { Reason::Malformed }
}
