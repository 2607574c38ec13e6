//! Redirects a segment to the egress proxy. `from_sandbox` calls this program for segments that the
//! proxy must judge by name (line 7) or carry through a tunnel.
//!
//! The segment is assigned to the proxy's socket and marked, and the routing rule for the mark
//! delivers it locally. Nothing else may happen to it. A frame that is not addressed to the
//! interface's own MAC could cross a bridge, so it is denied. The host's stack does not forward a
//! packet with an assigned socket, so without the routing rule the packet is dropped.
//!
//! ICMP errors about a connection of the proxy are delivered in the same way, so that a router in the
//! sandbox can tell the proxy the MTU of a path. Other errors are judged as `from_sandbox` did.
//!
//! This program selects the socket, because the destination may be an address that a service of the
//! host listens on.

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_F_RECOMPUTE_CSUM,
    helpers::{bpf_l4_csum_replace, bpf_sk_assign},
    programs::TcContext,
};
use policy_common::{
    bpf_names::tail_call_index,
    reason::{self, Reason},
    redirect::{PROXY_SOCKET_MARK, REDIRECT_MARK, listener_key},
    verdict::{NO_RULE, Verdict},
};

use crate::{
    disposition::{AllowPacket, DenyPacket, PacketDisposition, PacketResult, RedirectPacket},
    inbound_connections::reply_ports,
    ip_header::{
        self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FragmentPart, IPPROTO_TCP, IpHeader, is_ipv4_mapped,
    },
    maps::TC_PROGRAMS,
    packet_context::{PacketContext, current_packet_view, skb_pointer},
    parsed_headers::ParsedHeaders,
    socket_lookup::{
        ConnectionTuple, SocketReference, TCP_CLOSE, TCP_LISTEN, TCP_NEW_SYN_RECV, TCP_TIME_WAIT,
    },
    transport::{self, EMPTY_TRANSPORT_HEADER, TCP_CHECKSUM_OFFSET, TransportHeader},
};

/// `PACKET_HOST` of linux/if_packet.h: addressed to the interface's own MAC.
const PACKET_HOST: u32 = 0;
/// Offset of the word with the TCP flags.
const TCP_FLAGS_OFFSET: usize = 12;
const TCP_ACK: u16 = 0x10;

/// Returns a packet that may pass. A packet for the proxy is passed on to the redirect program; if
/// that fails, it is denied.
#[inline(always)]
pub(crate) fn allow_or_redirect(ctx: &TcContext, disposition: PacketDisposition) -> PacketResult {
    match disposition {
        PacketDisposition::Allow(pass) => Ok(pass),
        PacketDisposition::Redirect(RedirectPacket(verdict)) => {
            store_verdict(ctx, verdict);
            // SAFETY: on success the call does not return, and nothing here needs dropping.
            unsafe { TC_PROGRAMS.tail_call(ctx, tail_call_index::PROXY_REDIRECT) };
            Err(DenyPacket::proxy_unavailable(verdict))
        }
    }
}

/// Stores the verdict for the next program in `__sk_buff::cb`, after the slot.
#[inline(always)]
fn store_verdict(ctx: &TcContext, verdict: Verdict) {
    let first = u32::from(verdict.reason_code) | u32::from(verdict.policy_id) << 16;
    // SAFETY: the context is valid while the program runs, and TC programs may write `cb`.
    unsafe {
        (*skb_pointer(ctx)).cb[1] = first;
        (*skb_pointer(ctx)).cb[2] = verdict.rule_index;
    }
}

/// Takes the stored verdict and clears it. In a socket lookup, older kernels (5.10) interpret these
/// bytes as IPv6 control data of the packet, and then only find sockets bound to an interface.
#[inline(always)]
fn take_stored_verdict(ctx: &TcContext) -> Verdict {
    // SAFETY: the context is valid while the program runs, and TC programs may write `cb`.
    let (first, rule) = unsafe {
        let cb = &raw mut (*skb_pointer(ctx)).cb;
        let noted = ((*cb)[1], (*cb)[2]);
        ((*cb)[1], (*cb)[2]) = (0, 0);
        noted
    };
    let [reason, _, a, b] = first.to_le_bytes();
    Verdict {
        reason_code: reason,
        flags: 0,
        policy_id: u16::from_le_bytes([a, b]),
        rule_index: rule,
    }
}

/// Assigns the packet to the proxy's socket.
#[inline(always)]
pub(crate) fn redirect_packet(
    ctx: &TcContext,
    hook: &PacketContext,
    headers: &mut ParsedHeaders,
) -> PacketResult {
    let verdict = take_stored_verdict(ctx);
    let parsed = parse_headers(hook, headers).is_ok();
    if parsed && headers.ip_header.protocol != IPPROTO_TCP {
        return deliver_error(ctx, hook, headers, verdict);
    }
    match parsed && assign_socket(ctx, hook, headers).is_some() {
        true => Ok(AllowPacket(verdict)),
        false => Err(DenyPacket::proxy_unavailable(verdict)),
    }
}

/// Delivers an ICMP error to the host if it quotes a segment of the proxy. Otherwise the verdict
/// about its destination holds.
#[inline(always)]
fn deliver_error(
    ctx: &TcContext,
    hook: &PacketContext,
    headers: &ParsedHeaders,
    verdict: Verdict,
) -> PacketResult {
    let passes = reason::code_passes(verdict.reason_code);
    if quotes_proxy_segment(ctx, hook, headers).is_some() {
        // SAFETY: TC programs may write the mark.
        unsafe { (*skb_pointer(ctx)).mark = REDIRECT_MARK };
        let by_name = Verdict { reason_code: Reason::ByName as u8, rule_index: NO_RULE, ..verdict };
        return Ok(AllowPacket(if passes { verdict } else { by_name }));
    }
    if passes { Ok(AllowPacket(verdict)) } else { Err(DenyPacket(verdict)) }
}

/// Whether an ICMP error quotes a segment of a connection between the proxy and the sandbox.
#[inline(always)]
fn quotes_proxy_segment(
    ctx: &TcContext,
    hook: &PacketContext,
    headers: &ParsedHeaders,
) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let to_host = unsafe { (*skb_pointer(ctx)).pkt_type } == PACKET_HOST;
    let quoted = reply_ports(hook, &headers.ip_header, &headers.transport_header)?;
    if !to_host || quoted.protocol != IPPROTO_TCP {
        return None;
    }
    // The connection as the sandbox's segments name it.
    let ports = TransportHeader {
        source_port: quoted.local_port,
        destination_port: quoted.remote_port,
        ..EMPTY_TRANSPORT_HEADER
    };
    let found = ConnectionTuple::from_headers(&headers.ip_header, &ports).lookup_socket(ctx)?;
    let full = found.full_socket()?;
    (full.mark() == PROXY_SOCKET_MARK && full.tcp_state() != TCP_LISTEN).then_some(())
}

/// Parses the headers again, because they do not fit into `cb`.
#[inline(always)]
fn parse_headers(hook: &PacketContext, headers: &mut ParsedHeaders) -> Result<(), Reason> {
    headers.ethertype = ip_header::read_ethertype(hook)?;
    match headers.ethertype {
        ETHERTYPE_IPV4 => ip_header::parse_ipv4(hook, &mut headers.ip_header)?,
        ETHERTYPE_IPV6 => ip_header::parse_ipv6(hook, &mut headers.ip_header)?,
        _ => return Err(Reason::UnknownEthertype),
    }
    headers.transport_header = transport::parse_transport(&hook.packet_view, &headers.ip_header)?;
    Ok(())
}

#[inline(always)]
fn assign_socket(ctx: &TcContext, hook: &PacketContext, headers: &ParsedHeaders) -> Option<()> {
    // SAFETY: the context is valid while the program runs.
    let to_host = unsafe { (*skb_pointer(ctx)).pkt_type } == PACKET_HOST;
    if !to_host || !is_deliverable(&headers.ip_header) {
        return None;
    }
    let socket = receiving_socket(ctx, hook, headers)?;
    // SAFETY: the context and the socket are valid. The helper takes its own reference.
    let result = unsafe { bpf_sk_assign(ctx.as_ptr(), socket.as_ptr().cast(), 0) };
    if result != 0 {
        return None;
    }
    // SAFETY: TC programs may write the mark.
    unsafe { (*skb_pointer(ctx)).mark = REDIRECT_MARK };
    Some(())
}

/// Whether the host's stack will process the TCP header of this very packet. IPv4-mapped addresses
/// are not valid on the wire.
#[inline(always)]
fn is_deliverable(header: &IpHeader) -> bool {
    let whole = header.fragment_part == FragmentPart::WholeDatagram && !header.is_atomic_fragment;
    header.protocol == IPPROTO_TCP && whole && !(header.is_v6 && is_ipv4_mapped(header.destination))
}

/// The socket that receives the segment: that of its connection, or the sandbox's listener.
///
/// The listener also receives segments that do not open a connection. With SYN cookies, an unknown
/// segment may be the third one of a handshake.
#[inline(always)]
fn receiving_socket(
    ctx: &TcContext,
    hook: &PacketContext,
    headers: &ParsedHeaders,
) -> Option<SocketReference> {
    let tuple = ConnectionTuple::from_headers(&headers.ip_header, &headers.transport_header);
    let Some(found) = tuple.lookup_socket(ctx) else { return endpoint_listener(hook, headers) };
    match found.tcp_state() {
        TCP_LISTEN => endpoint_listener(hook, headers),
        TCP_TIME_WAIT => {
            if headers.transport_header.opens_connection {
                turn_syn_into_challenge(ctx, &headers.ip_header)?;
            }
            Some(found)
        }
        TCP_NEW_SYN_RECV => {
            // A request socket has no mark, but its listener has.
            let listener_of_it = tuple.lookup_full_socket(ctx)?;
            let full = listener_of_it.full_socket()?;
            match full.mark() {
                PROXY_SOCKET_MARK if full.tcp_state() == TCP_CLOSE => {
                    endpoint_listener(hook, headers)
                }
                PROXY_SOCKET_MARK => Some(found),
                _ => None,
            }
        }
        // A connection to a service of the host that predates the redirection ends here.
        _ => (found.full_socket()?.mark() == PROXY_SOCKET_MARK).then_some(found),
    }
}

/// The listener of the sandbox, for this family.
#[inline(always)]
fn endpoint_listener(hook: &PacketContext, headers: &ParsedHeaders) -> Option<SocketReference> {
    SocketReference::proxy_listener(listener_key(hook.slot, headers.ip_header.is_v6))
}

/// Turns a segment that opens a connection into a challenge for a socket in TIME_WAIT.
///
/// A client may reuse its port immediately. For such a segment the kernel would look up a listener
/// at the destination itself, and might find a service of the host. With the ACK flag set, the
/// socket instead repeats its last acknowledgement. The client replies with a reset, which ends the
/// old connection, and immediately opens the new one again (RFC 9293, 3.5.2, case "old duplicate").
#[inline(always)]
fn turn_syn_into_challenge(ctx: &TcContext, header: &IpHeader) -> Option<()> {
    let before =
        *current_packet_view(ctx).read_at::<[u8; 2]>(header.transport_offset + TCP_FLAGS_OFFSET)?;
    let after = (u16::from_be_bytes(before) | TCP_ACK).to_be_bytes();
    let [from, to] = [before, after].map(|word| u64::from(u16::from_ne_bytes(word)));
    #[expect(clippy::cast_possible_truncation, reason = "headers lie in the first 2 KiB")]
    let checksum = header.transport_offset as u32 + TCP_CHECKSUM_OFFSET;
    // SAFETY: the context is valid while the program runs. The helper checks the offset.
    if unsafe { bpf_l4_csum_replace(skb_pointer(ctx), checksum, from, to, 2) } != 0 {
        return None;
    }
    ctx.store(header.transport_offset + TCP_FLAGS_OFFSET, &after, BPF_F_RECOMPUTE_CSUM.into()).ok()
}
