//! Judges packets to the sandbox. A packet that opens a connection is stored, or refused if only
//! the host itself may open connections.
//!
//! TCP is admitted by its SYN. UDP and ICMP echo are only admitted if the host itself sent them: a
//! server's late reply must not turn an outbound flow into an inbound one.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use policy_common::{endpoint::ENDPOINT_INBOUND_FROM_HOST, reason::Reason};

use crate::{
    disposition::PacketResult,
    endpoint,
    inbound_connections::{self, ConnectionPorts, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REQUEST},
    ip_header::{
        self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6,
        IPPROTO_TCP, IPPROTO_UDP, IpHeader,
    },
    maps::INBOUND,
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
    transport::{self, TransportHeader},
};

/// Judges a packet to the sandbox. `from_host`: the host itself sent it.
#[inline(always)]
pub(crate) fn judge_to_sandbox(
    hook: &PacketContext,
    headers: &mut ParsedHeaders,
    from_host: bool,
) -> PacketResult {
    let sandbox = endpoint::active_endpoint(hook)?;
    let ethertype = ip_header::read_ethertype(hook);
    headers.ethertype = ethertype.unwrap_or_default();
    let parsed = match ethertype {
        Ok(ETHERTYPE_IPV4) => ip_header::parse_ipv4(hook, &mut headers.ip_header),
        Ok(ETHERTYPE_IPV6) => ip_header::parse_ipv6(hook, &mut headers.ip_header),
        Ok(_) => return Ok(Reason::Delivered.into()),
        Err(reason) => Err(reason),
    };
    // A fragment may have been forwarded: when the kernel refragments a datagram that it
    // reassembled, the ingress interface is lost.
    let from_host = from_host && headers.ip_header.fragment_part == FragmentPart::WholeDatagram;
    let closed = sandbox.flags & ENDPOINT_INBOUND_FROM_HOST != 0 && !from_host;
    match parsed.and_then(|()| track_connection_start(hook, headers, from_host, closed)) {
        Ok(true) | Err(_) if closed => Err(Reason::InboundRefused.into()),
        _ => Ok(Reason::Delivered.into()),
    }
}

/// Whether the packet opens a connection. If it is admitted, the connection is stored. `closed`:
/// connections that it opens are refused.
#[inline(always)]
fn track_connection_start(
    hook: &PacketContext,
    headers: &mut ParsedHeaders,
    from_host: bool,
    closed: bool,
) -> Result<bool, Reason> {
    let header = &headers.ip_header;
    if header.fragment_part == FragmentPart::LaterFragment {
        return Ok(false);
    }
    headers.transport_header = transport::parse_transport(&hook.packet_view, header)?;
    let transport = &headers.transport_header;
    let starts = match header.protocol {
        IPPROTO_TCP => transport.opens_connection,
        IPPROTO_UDP => false,
        IPPROTO_ICMP => !header.is_v6 && transport.icmp_type == ICMP_ECHO_REQUEST,
        IPPROTO_ICMPV6 => header.is_v6 && transport.icmp_type == ICMPV6_ECHO_REQUEST,
        _ => true,
    };
    let counts = match header.protocol {
        IPPROTO_TCP => starts && !closed,
        IPPROTO_UDP => from_host,
        IPPROTO_ICMP | IPPROTO_ICMPV6 => starts && from_host,
        _ => false,
    };
    if counts {
        track_inbound_connection(hook, header, transport);
    }
    Ok(starts)
}

/// Adds the entry that allows the sandbox to reply.
#[inline(never)]
fn track_inbound_connection(hook: &PacketContext, header: &IpHeader, transport: &TransportHeader) {
    let ports = ConnectionPorts {
        protocol: header.protocol,
        remote_port: transport.source_port,
        local_port: transport.destination_port,
    };
    let key = inbound_connections::connection_key(
        endpoint::endpoint_instance_id(hook),
        header.source,
        header.destination,
        ports,
    );
    if INBOUND.get_ptr(key).is_none() {
        // SAFETY: the helper reads a clock.
        let now = unsafe { bpf_ktime_get_ns() };
        // Without an entry, replies are judged like outbound packets.
        let _ = INBOUND.insert(key, now, 0);
    }
}
