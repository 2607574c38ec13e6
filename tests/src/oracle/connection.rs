//! Line 3: connections started towards the sandbox, and what belongs to them.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    datagram::{Datagram, v6},
    transport::{ICMP, ICMPV6, TCP, Transport, UDP},
};

/// A connection as the sandbox sees it. An echo has its identifier on the side that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Connection {
    pub protocol: u8,
    pub remote: (IpAddr, u16),
    pub local: (IpAddr, u16),
}

/// The connection that a packet towards the sandbox starts, if it is of a kind that does.
pub fn started_by(datagram: &Datagram<'_>, transport: &Transport) -> Option<Connection> {
    let (source, destination) = match *transport {
        Transport::Tcp { source, destination, .. } if transport.opens() => (source, destination),
        Transport::Udp { source, destination } => (source, destination),
        Transport::Icmp { identifier, .. } if transport.is_echo_request() => (identifier, 0),
        _ => return None,
    };
    Some(Connection {
        protocol: datagram.protocol,
        remote: (datagram.source, source),
        local: (datagram.destination, destination),
    })
}

/// The inbound connection that a packet from the sandbox would answer. A SYN without ACK answers
/// none: a port that a service exposes is no way out.
pub fn answered_by(datagram: &Datagram<'_>, transport: &Transport) -> Option<Connection> {
    let (remote, local) = match *transport {
        Transport::Tcp { source, destination, .. } if !transport.opens() => (destination, source),
        Transport::Udp { source, destination } => (destination, source),
        Transport::Icmp { v6: false, kind: 0, identifier }
        | Transport::Icmp { v6: true, kind: 129, identifier } => (identifier, 0),
        Transport::Icmp { v6: false, kind: 3 | 11 | 12, .. }
        | Transport::Icmp { v6: true, kind: 1..=4, .. } => return quoted_in(datagram),
        _ => return None,
    };
    Some(Connection {
        protocol: datagram.protocol,
        remote: (datagram.destination, remote),
        local: (datagram.source, local),
    })
}

/// Whether a packet is an ICMP error about a packet that did not come to the sandbox from whom the
/// error goes to, or an ICMP redirect: a sandbox has no business to send those.
pub fn is_foreign_error(datagram: &Datagram<'_>, transport: &Transport) -> bool {
    let addresses = match *transport {
        Transport::Icmp { v6: false, kind: 5, .. } => return true,
        Transport::Icmp { v6: false, kind: 3 | 4 | 11 | 12, .. } => {
            datagram.payload.get(8..28).map(|quote| (v4(&quote[12..16]), v4(&quote[16..20])))
        }
        Transport::Icmp { v6: true, kind: 0..=127, .. } => {
            datagram.payload.get(8..48).map(|quote| (v6(&quote[8..24]), v6(&quote[24..40])))
        }
        _ => return false,
    };
    addresses != Some((datagram.destination, datagram.source))
}

fn v4(octets: &[u8]) -> IpAddr {
    Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]).into()
}

/// The TCP or UDP connection of the packet that an ICMP error is about. That packet ran the other
/// way, between the same addresses. Only headers without options or extensions are followed.
fn quoted_in(datagram: &Datagram<'_>) -> Option<Connection> {
    let quote = datagram.payload.get(8..)?;
    let (protocol, remote, local, ports) = if datagram.is_v6() {
        let ports = quote.get(40..44).filter(|_| quote[0] >> 4 == 6)?;
        (quote[6], v6(&quote[8..24]), v6(&quote[24..40]), ports)
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
    debug_assert!(!matches!(datagram.protocol, TCP | UDP), "an error is ICMP");
    debug_assert!(matches!(datagram.protocol, ICMP | ICMPV6), "an error is ICMP");
    (between && matches!(protocol, TCP | UDP)).then(|| Connection {
        protocol,
        remote: (remote, u16::from_be_bytes([ports[0], ports[1]])),
        local: (local, u16::from_be_bytes([ports[2], ports[3]])),
    })
}
