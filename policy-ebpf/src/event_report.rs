//! Reports events: every denial that the sandbox's token bucket admits, except of background traffic,
//! and on request new flows.
//!
//! Records are submitted without waking the reader, which polls: wakeups are expensive, writes are
//! not.

use aya_ebpf::bindings::BPF_RB_NO_WAKEUP;
use policy_common::{
    endpoint::ENDPOINT_REPORT_FLOWS, event::VerdictEvent, reason::Reason, verdict::Verdict,
};

use crate::{
    background_traffic, event_limits,
    ip_header::{FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, address_to_bytes},
    maps::{EVENTS, SANDBOXES},
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
    reported_flows,
};

/// Reports a packet that passed, if it is the first of its flow and flow reporting is enabled.
#[inline(always)]
pub(crate) fn report_new_flow(hook: &PacketContext, headers: &ParsedHeaders, verdict: Verdict) {
    let wanted =
        SANDBOXES.get(hook.slot).is_some_and(|sandbox| sandbox.flags & ENDPOINT_REPORT_FLOWS != 0);
    if wanted && is_new_flow(hook, headers, verdict) {
        write_event(hook, headers, verdict);
    }
}

/// Whether the packet starts a flow. TCP: the opening segment. Other protocols: a packet to
/// a destination that is not in `FLOWS`. Replies to inbound connections do not count.
#[inline(never)]
fn is_new_flow(hook: &PacketContext, headers: &ParsedHeaders, verdict: Verdict) -> bool {
    let reported =
        verdict.reason_code != Reason::Reply as u8 && verdict.reason_code != Reason::Neighbor as u8;
    if !reported || headers.ip_header.fragment_part == FragmentPart::LaterFragment {
        return false;
    }
    if headers.ip_header.protocol == IPPROTO_TCP {
        return headers.transport_header.opens_connection;
    }
    reported_flows::starts_datagram_flow(hook, headers)
}

/// Writes a record if the sandbox's bucket has a token and the ring has room for this sandbox.
/// Otherwise counts it as suppressed or lost.
#[inline(never)]
pub(crate) fn write_event(hook: &PacketContext, headers: &ParsedHeaders, verdict: Verdict) {
    if background_traffic::is_background(hook, headers, verdict.reason_code) {
        return;
    }
    let now = event_limits::take_event_token(hook.slot);
    if now == 0 {
        return;
    }
    let Some(mut record) = EVENTS.reserve(0) else {
        event_limits::count_lost_event(hook.slot);
        return;
    };
    let (source_port, destination_port) = event_ports(headers);
    record.write(VerdictEvent {
        time_ns: now,
        slot: hook.slot,
        rule_index: verdict.rule_index,
        frame_length: hook.frame_length,
        policy_id: verdict.policy_id,
        ethertype: u16::from_be_bytes(headers.ethertype),
        source_port,
        destination_port,
        protocol: headers.ip_header.protocol,
        reason_code: verdict.reason_code,
        padding: [0; 2],
        source_address: address_to_bytes(headers.ip_header.source),
        destination_address: address_to_bytes(headers.ip_header.destination),
    });
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// The ports, or the ICMP type and code.
#[inline(always)]
fn event_ports(headers: &ParsedHeaders) -> (u16, u16) {
    let transport = &headers.transport_header;
    if matches!(headers.ip_header.protocol, IPPROTO_ICMP | IPPROTO_ICMPV6) {
        (transport.icmp_type.into(), transport.icmp_code.into())
    } else {
        (transport.source_port, transport.destination_port)
    }
}
