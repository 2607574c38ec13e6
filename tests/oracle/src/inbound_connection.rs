//! Line 3 of the precedence: connections that others start to the sandbox, and the packets that
//! belong to them.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    ip_header::{IpHeader, v6_address},
    transport_header::{
        PROTOCOL_ICMP, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TransportHeader,
    },
};

/// A connection from the sandbox's point of view. The identifier of an echo takes the place of the
/// requester's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct InboundConnection {
    pub protocol: u8,
    pub remote: (IpAddr, u16),
    pub local: (IpAddr, u16),
}

/// Returns the connection that a packet to the sandbox starts, if its protocol can start one.
pub(crate) fn connection_started_by(
    datagram: &IpHeader<'_>,
    transport: &TransportHeader,
) -> Option<InboundConnection> {
    let (source, destination) = match *transport {
        TransportHeader::Tcp { source, destination, .. } if transport.opens_connection() => {
            (source, destination)
        }
        TransportHeader::Udp { source, destination } => (source, destination),
        TransportHeader::Icmp { identifier, .. } if transport.is_echo_request() => (identifier, 0),
        _ => return None,
    };
    Some(InboundConnection {
        protocol: datagram.protocol,
        remote: (datagram.source, source),
        local: (datagram.destination, destination),
    })
}

/// Returns the TCP connection of a segment from the sandbox.
pub(crate) fn tcp_connection_of(
    datagram: &IpHeader<'_>,
    transport: &TransportHeader,
) -> Option<InboundConnection> {
    let TransportHeader::Tcp { source, destination, .. } = *transport else { return None };
    Some(InboundConnection {
        protocol: datagram.protocol,
        remote: (datagram.destination, destination),
        local: (datagram.source, source),
    })
}

/// Returns the inbound connection to which a packet from the sandbox would be a reply. A SYN
/// without ACK is never a reply: an exposed port must not let the sandbox open connections.
pub(crate) fn connection_answered_by(
    datagram: &IpHeader<'_>,
    transport: &TransportHeader,
) -> Option<InboundConnection> {
    let (remote, local) = match *transport {
        TransportHeader::Tcp { source, destination, .. } if !transport.opens_connection() => {
            (destination, source)
        }
        TransportHeader::Udp { source, destination } => (destination, source),
        TransportHeader::Icmp { v6: false, kind: 0, identifier }
        | TransportHeader::Icmp { v6: true, kind: 129, identifier } => (identifier, 0),
        TransportHeader::Icmp { v6: false, kind: 3 | 11 | 12, .. }
        | TransportHeader::Icmp { v6: true, kind: 1..=4, .. } => {
            return connection_quoted_in(datagram);
        }
        _ => return None,
    };
    Some(InboundConnection {
        protocol: datagram.protocol,
        remote: (datagram.destination, remote),
        local: (datagram.source, local),
    })
}

/// Returns whether a packet is an ICMP redirect, or an ICMP error about a packet that the error's
/// destination did not send to the sandbox. A sandbox has no reason to send either.
pub(crate) fn is_foreign_error(datagram: &IpHeader<'_>, transport: &TransportHeader) -> bool {
    let addresses = match *transport {
        TransportHeader::Icmp { v6: false, kind: 5, .. } => return true,
        TransportHeader::Icmp { v6: false, kind: 3 | 4 | 11 | 12, .. } => datagram
            .payload
            .get(8..28)
            .map(|quote| (v4_address(&quote[12..16]), v4_address(&quote[16..20]))),
        TransportHeader::Icmp { v6: true, kind: 0..=127, .. } => datagram
            .payload
            .get(8..48)
            .map(|quote| (v6_address(&quote[8..24]), v6_address(&quote[24..40]))),
        _ => return false,
    };
    addresses != Some((datagram.destination, datagram.source))
}

fn v4_address(octets: &[u8]) -> IpAddr {
    Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
}

/// Returns the TCP or UDP connection of the packet that an ICMP error quotes. That packet travelled
/// in the opposite direction between the same addresses. Only headers without options or extension
/// headers are parsed.
fn connection_quoted_in(datagram: &IpHeader<'_>) -> Option<InboundConnection> {
    let quote = datagram.payload.get(8..)?;
    let (protocol, remote, local, ports) = if datagram.is_v6() {
        let ports = quote.get(40..44).filter(|_| quote[0] >> 4 == 6)?;
        (quote[6], v6_address(&quote[8..24]), v6_address(&quote[24..40]), ports)
    } else {
        let ports = quote.get(20..24)?;
        let first = u16::from_be_bytes([quote[6], quote[7]]) & 0x1fff == 0;
        if quote[0] != 0x45 || !first {
            return None;
        }
        let v4 = |at: usize| Ipv4Addr::new(quote[at], quote[at + 1], quote[at + 2], quote[at + 3]);
        (quote[9], v4(12).into(), v4(16).into(), ports)
    };
    let between = (remote, local) == (datagram.destination, datagram.source);
    debug_assert!(!matches!(datagram.protocol, PROTOCOL_TCP | PROTOCOL_UDP), "an error is ICMP");
    debug_assert!(matches!(datagram.protocol, PROTOCOL_ICMP | PROTOCOL_ICMPV6), "an error is ICMP");
    (between && matches!(protocol, PROTOCOL_TCP | PROTOCOL_UDP)).then(|| InboundConnection {
        protocol,
        remote: (remote, u16::from_be_bytes([ports[0], ports[1]])),
        local: (local, u16::from_be_bytes([ports[2], ports[3]])),
    })
}
