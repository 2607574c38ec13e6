//! Reports events: every denial that the sandbox's token bucket admits, except of background traffic,
//! and on request new flows.
//!
//! Records are submitted without waking the reader, which polls: wakeups are expensive, writes are
//! not.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_ktime_get_ns};
use policy_common::{
    endpoint::ENDPOINT_REPORT_FLOWS, event::VerdictEvent, flow::ReportedFlowKey, rate_limit,
    reason::Reason, verdict::Verdict,
};

use crate::{
    background_traffic,
    endpoint::endpoint_instance_id,
    ip_header::{FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_TCP, address_to_bytes},
    maps::{EVENTS, FLOWS, LIMITS, SANDBOXES},
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
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

/// Whether the packet starts a flow. TCP: the opening segment. Other protocols: the first packet to
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
    let key = ReportedFlowKey {
        instance_id: endpoint_instance_id(hook),
        destination_port: headers.transport_header.destination_port,
        protocol: headers.ip_header.protocol,
        padding: 0,
        destination_address: address_to_bytes(headers.ip_header.destination),
    };
    let known = FLOWS.get_ptr(key).is_some();
    if !known {
        // If the insertion fails, the flow is reported again.
        let _ = FLOWS.insert(key, 0, 0);
    }
    !known
}

/// Writes a record if the bucket has a token and the ring has room. Otherwise counts it as
/// suppressed or lost.
#[inline(never)]
pub(crate) fn write_event(hook: &PacketContext, headers: &ParsedHeaders, verdict: Verdict) {
    if background_traffic::is_background(hook, headers, verdict.reason_code) {
        return;
    }
    let Some(limits) = LIMITS.get_ptr_mut(hook.slot) else { return };
    // SAFETY: the pointer is valid while the program runs. A race admits a token more or less, or
    // miscounts a lost event.
    let limits = unsafe { &mut *limits };
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(next) = rate_limit::EVENT_RATE_LIMIT.take_token(limits.event_bucket, now) else {
        limits.events_suppressed += 1;
        return;
    };
    limits.event_bucket = next;
    let Some(mut record) = EVENTS.reserve(0) else {
        limits.events_lost += 1;
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
