//! Judges packets to the sandbox. A packet that opens a connection is stored, or refused if only
//! the host itself may open connections.
//!
//! TCP is admitted by its SYN, unless the sandbox itself opens the same connection. UDP and ICMP
//! echo are only admitted if the host itself sent them: a server's late reply must not turn an
//! outbound flow into an inbound one.

use policy_common::{
    endpoint::ENDPOINT_INBOUND_FROM_HOST,
    reason::{self, Reason},
};

use crate::{
    datagram_exchanges::open_inbound_datagram,
    disposition::PacketResult,
    endpoint,
    inbound_connections::{
        ConnectionPorts, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REQUEST, connection_fingerprint,
    },
    ip_header::{
        self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6,
        IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, IpHeader,
    },
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
    policy_lookup,
    tcp_connections::{close_inbound_tcp, is_outbound_tcp, open_inbound_tcp},
    transport::{self, TCP_FIN, TCP_RST, TransportHeader},
};

/// Offset of the first chunk in an SCTP packet, and the chunk that opens an association, which is
/// always the first (RFC 9260, 3.3.2).
const SCTP_FIRST_CHUNK: usize = 12;
const SCTP_INIT: u8 = 1;

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
        _ => closed && !may_be_answer(hook, header),
    };
    match header.protocol {
        IPPROTO_TCP if starts && !closed => admit_tcp(hook, header, transport, from_host),
        IPPROTO_TCP if transport.tcp_flags & (TCP_FIN | TCP_RST) != 0 => {
            end_tcp(hook, header, transport);
        }
        IPPROTO_UDP if from_host => admit_datagram(hook, header, transport),
        IPPROTO_ICMP | IPPROTO_ICMPV6 if starts && from_host => {
            admit_datagram(hook, header, transport);
        }
        _ => {}
    }
    Ok(starts)
}

/// Whether a packet of a protocol without connection tracking may answer one of the sandbox: the
/// policy lets the sandbox send to its source, and it does not open an SCTP association.
#[inline(never)]
fn may_be_answer(hook: &PacketContext, header: &IpHeader) -> bool {
    if header.protocol == IPPROTO_SCTP {
        let chunk = header.transport_offset + SCTP_FIRST_CHUNK;
        match hook.packet_view.read_at::<[u8; 4]>(chunk) {
            Some(first) if first[0] != SCTP_INIT && chunk + 4 <= header.datagram_end => {}
            _ => return false,
        }
    }
    reason::code_passes(reason_towards_source(hook, header))
}

/// Stores a TCP connection, so that the sandbox may reply. The host's own SYN is no simultaneous
/// open through masquerading.
#[inline(never)]
fn admit_tcp(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
    from_host: bool,
) {
    let flow = inbound_fingerprint(hook, header, transport);
    if from_host || is_outbound_tcp(hook.slot, flow) == 0 {
        open_inbound_tcp(hook.slot, flow);
    }
}

#[inline(never)]
fn end_tcp(hook: &PacketContext, header: &IpHeader, transport: &TransportHeader) {
    let flow = inbound_fingerprint(hook, header, transport);
    close_inbound_tcp(hook.slot, flow, transport.tcp_flags.into());
}

/// Stores an exchange that the host began, so that the sandbox may reply. Where `platform_allow`
/// lets it reply anyway, there is nothing to store: the answers of a resolver on the host would
/// otherwise fill the table, and stay after the resolver is denied.
#[inline(never)]
fn admit_datagram(hook: &PacketContext, header: &IpHeader, transport: &TransportHeader) {
    if reason_towards_source(hook, header) != Reason::PlatformAllow as u8 {
        open_inbound_datagram(hook.slot, inbound_fingerprint(hook, header, transport));
    }
}

/// The reason code of the policy's verdict about packets from the sandbox to the source.
#[inline(never)]
fn reason_towards_source(hook: &PacketContext, header: &IpHeader) -> u8 {
    let reply = IpHeader { destination: header.source, ..*header };
    match policy_lookup::lookup_verdict(hook.slot, &reply) {
        Ok(verdict) => verdict.reason_code,
        Err(reason) => reason as u8,
    }
}

#[inline(always)]
fn inbound_fingerprint(
    hook: &PacketContext,
    header: &IpHeader,
    transport: &TransportHeader,
) -> u64 {
    let ports = ConnectionPorts {
        protocol: header.protocol,
        remote_port: transport.source_port,
        local_port: transport.destination_port,
    };
    connection_fingerprint(hook, header.source, header.destination, &ports)
}
