//! Line 3: connections that were started towards the sandbox, and what belongs to them.
//!
//! An entry is made when the first packet towards the sandbox is let in (`admit`). A TCP segment
//! that opens a connection is never a reply, so an exposed port is no way out.

use policy_common::flow::InboundKey;

use crate::{
    context::Hook,
    decide::owner,
    header::{Address, Header, ICMP, ICMPV6, TCP, UDP, bytes, mapped, words},
    maps::INBOUND,
    spoof::same,
    transport::Transport,
};

pub const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
pub const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Length of the ICMP header before the packet it is about.
const ICMP_HEADER: usize = 8;

/// What tells the connections between two addresses apart. Ports in host byte order; an ICMP echo
/// has its identifier on the side that asks, and 0 on the other.
#[derive(Clone, Copy)]
pub struct Ports {
    pub protocol: u8,
    pub remote: u16,
    pub local: u16,
}

/// Whether a packet from the sandbox belongs to an inbound connection that was let in.
#[inline(never)]
pub fn is_reply(hook: &Hook, header: &Header, transport: &Transport) -> bool {
    let Some(ports) = ports(hook, header, transport) else { return false };
    let owner = owner(hook);
    let key = key(owner, header.destination, header.source, ports);
    owner != 0 && INBOUND.get_ptr(key).is_some()
}

/// The key of a connection.
#[inline(always)]
pub fn key(owner: u32, remote: Address, local: Address, ports: Ports) -> InboundKey {
    InboundKey {
        owner,
        remote_port: ports.remote,
        local_port: ports.local,
        protocol: ports.protocol,
        padding: [0; 3],
        remote: bytes(remote),
        local: bytes(local),
    }
}

/// The ports of the inbound connection that a packet from the sandbox could belong to.
#[inline(always)]
fn ports(hook: &Hook, header: &Header, transport: &Transport) -> Option<Ports> {
    let protocol = header.protocol;
    let &Transport { source_port: local, destination_port: remote, .. } = transport;
    match (protocol, transport.kind) {
        (TCP, _) if !transport.opens => Some(Ports { protocol, remote, local }),
        (UDP, _) => Some(Ports { protocol, remote, local }),
        // The identifier stands in the place of the source port.
        (ICMP, ECHO_REPLY) if !header.v6 => Some(Ports { protocol, remote: local, local: 0 }),
        (ICMPV6, ECHO_REPLY_V6) if header.v6 => Some(Ports { protocol, remote: local, local: 0 }),
        (ICMP, 3 | 11 | 12) if !header.v6 => error_v4(hook, header),
        (ICMPV6, 1..=4) if header.v6 => error_v6(hook, header),
        _ => None,
    }
}

/// Whether a packet is an ICMP error that the sandbox has no business to send: one about a packet
/// that was not sent to it by whom the error goes to, or a redirect.
#[inline(always)]
pub fn is_foreign_error(hook: &Hook, header: &Header, transport: &Transport) -> bool {
    let is_error = match header.protocol {
        ICMP if !header.v6 => matches!(transport.kind, 3 | 4 | 5 | 11 | 12),
        ICMPV6 if header.v6 => transport.kind < 128,
        _ => false,
    };
    let is_redirect = !header.v6 && transport.kind == 5;
    is_error && (is_redirect || !quotes_this_pair(hook, header))
}

/// Whether an error quotes a packet that ran the other way between the same two addresses.
#[inline(never)]
fn quotes_this_pair(hook: &Hook, header: &Header) -> bool {
    let start = header.transport + ICMP_HEADER;
    let addresses = if header.v6 { start + 8 } else { start + 12 };
    let pair = if header.v6 {
        let source = hook.packet.read::<[u8; 16]>(addresses);
        let destination = hook.packet.read::<[u8; 16]>(addresses + 16);
        source.zip(destination).map(|(source, destination)| (words(*source), words(*destination)))
    } else {
        let both = hook.packet.read::<[u8; 8]>(addresses);
        both.map(|a| (mapped([a[0], a[1], a[2], a[3]]), mapped([a[4], a[5], a[6], a[7]])))
    };
    let end = if header.v6 { start + 40 } else { start + 20 };
    pair.is_some_and(|(remote, local)| {
        end <= header.end && same(remote, header.destination) && same(local, header.source)
    })
}

/// The ports of the inbound connection that an ICMP error is about. Its addresses are known to be
/// those of the error itself (`is_foreign_error`).
#[inline(always)]
fn error_v4(hook: &Hook, header: &Header) -> Option<Ports> {
    let start = header.transport + ICMP_HEADER;
    let about = hook.packet.read::<[u8; 24]>(start)?;
    let whole_or_first = about[0] == 0x45 && about[6] & 0x1f == 0 && about[7] == 0;
    if !whole_or_first || start + 24 > header.end {
        return None;
    }
    error_ports(about[9], [about[20], about[21], about[22], about[23]])
}

/// The same for ICMPv6; packets with extension headers are not followed.
#[inline(always)]
fn error_v6(hook: &Hook, header: &Header) -> Option<Ports> {
    let start = header.transport + ICMP_HEADER;
    let about = hook.packet.read::<[u8; 8]>(start)?;
    let ports = hook.packet.read::<[u8; 4]>(start + 40)?;
    if about[0] >> 4 != 6 || start + 44 > header.end {
        return None;
    }
    error_ports(about[6], *ports)
}

#[inline(always)]
fn error_ports(protocol: u8, ports: [u8; 4]) -> Option<Ports> {
    let remote = u16::from_be_bytes([ports[0], ports[1]]);
    let local = u16::from_be_bytes([ports[2], ports[3]]);
    matches!(protocol, TCP | UDP).then_some(Ports { protocol, remote, local })
}
