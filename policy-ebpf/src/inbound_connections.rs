//! Line 3: connections that were opened to the sandbox, and packets that belong to them.
//!
//! `to_sandbox` adds a flow when it admits the first packet to the sandbox. A TCP segment that opens
//! a connection is never a reply, so an exposed port does not allow outbound connections.

use policy_common::flow_fingerprint::flow_fingerprint;

use crate::{
    datagram_exchanges::reply_inbound_datagram,
    endpoint::same_address,
    ip_header::{
        AddressWords, FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, IPPROTO_UDP,
        IpHeader, address_from_bytes, ipv4_mapped,
    },
    maps::SANDBOXES,
    packet_context::PacketContext,
    tcp_connections::{self, reply_inbound_tcp},
    transport::{TCP_FIN, TCP_RST, TCP_SYN, TransportHeader},
};

pub(crate) const ICMP_ECHO_REQUEST: u8 = 8;
const ICMP_ECHO_REPLY: u8 = 0;
pub(crate) const ICMPV6_ECHO_REQUEST: u8 = 128;
const ICMPV6_ECHO_REPLY: u8 = 129;
/// Length of the ICMP header that precedes the quoted packet.
const ICMP_HEADER_LEN: usize = 8;

/// Identifies a connection between two addresses. Ports are in host byte order. An ICMP echo has
/// its identifier as the requester's port and 0 as the other.
#[derive(Clone, Copy)]
pub(crate) struct ConnectionPorts {
    pub protocol: u8,
    pub remote_port: u16,
    pub local_port: u16,
}

/// Whether a packet from the sandbox belongs to an inbound connection that was admitted.
#[inline(never)]
pub(crate) fn is_reply(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
) -> bool {
    let Some(ports) = reply_ports(hook, header, transport) else { return false };
    let flow = connection_fingerprint(hook, header.destination, header.source, &ports);
    if ports.protocol != IPPROTO_TCP {
        return reply_inbound_datagram(hook.slot, flow) != 0;
    }
    // An ICMP error does not change the connection, as the second segment of a handshake does not.
    let flags = if header.protocol == IPPROTO_TCP { transport.tcp_flags } else { TCP_SYN };
    reply_inbound_tcp(hook.slot, flow, flags.into()) != 0
}

/// Follows a connection that the policy allows, if the segment opens or closes it.
#[inline(always)]
pub(crate) fn follow_allowed_segment(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
) {
    if header.protocol == IPPROTO_TCP && transport.tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST) != 0 {
        note_allowed_segment(hook, header, transport);
    }
}

#[inline(never)]
fn note_allowed_segment(hook: &PacketContext, header: &IpHeader, transport: &TransportHeader) {
    let ports = ConnectionPorts {
        protocol: IPPROTO_TCP,
        remote_port: transport.destination_port,
        local_port: transport.source_port,
    };
    let flow = connection_fingerprint(hook, header.destination, header.source, &ports);
    tcp_connections::note_allowed_segment(hook.slot, flow, transport.tcp_flags);
}

/// Whether a packet is an ICMP error about a TCP segment, which may belong to a connection of the
/// egress proxy. `is_foreign_error` has checked the quoted addresses.
#[inline(never)]
pub(crate) fn quotes_tcp_segment(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
) -> bool {
    header.protocol != IPPROTO_TCP
        && header.fragment_part == FragmentPart::WholeDatagram
        && !header.is_atomic_fragment
        && reply_ports(hook, header, transport).is_some_and(|quoted| quoted.protocol == IPPROTO_TCP)
}

/// The fingerprint of a connection of this sandbox.
#[inline(always)]
pub(crate) fn connection_fingerprint(
    hook: &PacketContext,
    remote: AddressWords,
    local: AddressWords,
    ports: &ConnectionPorts,
) -> u64 {
    let ports = u64::from(ports.remote_port)
        | u64::from(ports.local_port) << 16
        | u64::from(ports.protocol) << 32;
    hash_flow(hook, ports, remote, local)
}

/// The fingerprint of a flow of this sandbox. `ports`: 40 bits that identify it, besides the
/// addresses.
#[inline(always)]
pub(crate) fn hash_flow(
    hook: &PacketContext,
    ports: u64,
    remote: AddressWords,
    local: AddressWords,
) -> u64 {
    let [a, b, c, d] = remote.map(u64::from);
    let [e, f, g, h] = local.map(u64::from);
    let slot = u64::from(hook.slot) << SLOT_SHIFT;
    hash_words(ports | slot, a | b << 32, c | d << 32, e | f << 32, g | h << 32)
}

/// Position of the slot in the first argument of [`hash_words`], above ports and protocol.
const SLOT_SHIFT: u32 = 40;

/// A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hash_words(ports: u64, remote: u64, remote2: u64, local: u64, local2: u64) -> u64 {
    let slot = (ports >> SLOT_SHIFT) as u32;
    let key = SANDBOXES.get(slot).map_or([0; 2], |sandbox| sandbox.flow_key);
    flow_fingerprint(key, &[ports, remote, remote2, local, local2])
}

/// The ports of the connection that a packet from the sandbox may belong to. An ICMP error belongs
/// to the connection that it quotes.
#[inline(always)]
pub(crate) fn reply_ports(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
) -> Option<ConnectionPorts> {
    let protocol = header.protocol;
    let &TransportHeader { source_port: local, destination_port: remote, .. } = transport;
    match (protocol, transport.icmp_type) {
        (IPPROTO_TCP, _) if !transport.opens_connection => {
            Some(ConnectionPorts { protocol, remote_port: remote, local_port: local })
        }
        (IPPROTO_UDP, _) => {
            Some(ConnectionPorts { protocol, remote_port: remote, local_port: local })
        }
        // The parser stores the identifier as the source port.
        (IPPROTO_ICMP, ICMP_ECHO_REPLY) if !header.is_v6 => {
            Some(ConnectionPorts { protocol, remote_port: local, local_port: 0 })
        }
        (IPPROTO_ICMPV6, ICMPV6_ECHO_REPLY) if header.is_v6 => {
            Some(ConnectionPorts { protocol, remote_port: local, local_port: 0 })
        }
        (IPPROTO_ICMP, 3 | 11 | 12) if !header.is_v6 => quoted_ports_v4(hook, header),
        (IPPROTO_ICMPV6, 1..=4) if header.is_v6 => quoted_ports_v6(hook, header),
        _ => None,
    }
}

/// Whether a packet is an ICMP error that the sandbox must not send: a redirect, or an error about
/// a packet that the error's destination did not send to the sandbox.
#[inline(always)]
pub(crate) fn is_foreign_error(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
) -> bool {
    let is_error = match header.protocol {
        IPPROTO_ICMP if !header.is_v6 => matches!(transport.icmp_type, 3 | 4 | 5 | 11 | 12),
        IPPROTO_ICMPV6 if header.is_v6 => transport.icmp_type < 128,
        _ => false,
    };
    let is_redirect = !header.is_v6 && transport.icmp_type == 5;
    is_error && (is_redirect || !quotes_reverse_packet(hook, header))
}

/// Whether an error quotes a packet in the opposite direction between the same two addresses.
#[inline(never)]
fn quotes_reverse_packet(hook: &PacketContext, header: &IpHeader) -> bool {
    let start = header.transport_offset + ICMP_HEADER_LEN;
    let addresses = if header.is_v6 { start + 8 } else { start + 12 };
    let pair = if header.is_v6 {
        let source = hook.packet_view.read_at::<[u8; 16]>(addresses);
        let destination = hook.packet_view.read_at::<[u8; 16]>(addresses + 16);
        source.zip(destination).map(|(source, destination)| {
            (address_from_bytes(*source), address_from_bytes(*destination))
        })
    } else {
        let both = hook.packet_view.read_at::<[u8; 8]>(addresses);
        both.map(|a| (ipv4_mapped([a[0], a[1], a[2], a[3]]), ipv4_mapped([a[4], a[5], a[6], a[7]])))
    };
    let end = if header.is_v6 { start + 40 } else { start + 20 };
    pair.is_some_and(|(remote, local)| {
        end <= header.datagram_end
            && same_address(remote, header.destination)
            && same_address(local, header.source)
    })
}

/// The ports of the inbound connection that an ICMP error quotes. `is_foreign_error` has checked
/// that the quoted addresses match those of the error.
#[inline(always)]
fn quoted_ports_v4(hook: &PacketContext, header: &IpHeader) -> Option<ConnectionPorts> {
    let start = header.transport_offset + ICMP_HEADER_LEN;
    let about = hook.packet_view.read_at::<[u8; 24]>(start)?;
    let whole_or_first = about[0] == 0x45 && about[6] & 0x1f == 0 && about[7] == 0;
    if !whole_or_first || start + 24 > header.datagram_end {
        return None;
    }
    ports_from_quote(about[9], [about[20], about[21], about[22], about[23]])
}

/// The same for ICMPv6. Quoted packets with extension headers are not parsed.
#[inline(always)]
fn quoted_ports_v6(hook: &PacketContext, header: &IpHeader) -> Option<ConnectionPorts> {
    let start = header.transport_offset + ICMP_HEADER_LEN;
    let about = hook.packet_view.read_at::<[u8; 8]>(start)?;
    let ports = hook.packet_view.read_at::<[u8; 4]>(start + 40)?;
    if about[0] >> 4 != 6 || start + 44 > header.datagram_end {
        return None;
    }
    ports_from_quote(about[6], *ports)
}

#[inline(always)]
fn ports_from_quote(protocol: u8, ports: [u8; 4]) -> Option<ConnectionPorts> {
    let remote = u16::from_be_bytes([ports[0], ports[1]]);
    let local = u16::from_be_bytes([ports[2], ports[3]]);
    matches!(protocol, IPPROTO_TCP | IPPROTO_UDP).then_some(ConnectionPorts {
        protocol,
        remote_port: remote,
        local_port: local,
    })
}
