//! Events: every denial as far as the sandbox's token bucket reaches, and on request new flows.
//!
//! The ring is written without waking its reader, which polls: wakeups are the cost, not writes.

use aya_ebpf::{bindings::BPF_RB_NO_WAKEUP, helpers::bpf_ktime_get_ns};
use policy_common::{
    event::Event, flow::FlowKey, limit, policy::Verdict, reason::Reason, sandbox::REPORT_FLOWS,
};

use crate::{
    context::{Hook, Seen},
    decide::owner,
    header::{ICMP, ICMPV6, Part, TCP, bytes},
    maps::{EVENTS, FLOWS, LIMITS, SANDBOXES},
};

/// Reports a packet that passed, if it is the first of its flow and somebody wants to know.
#[inline(always)]
pub fn flow(hook: &Hook, seen: &Seen, verdict: Verdict) {
    let wanted = SANDBOXES.get(hook.slot).is_some_and(|sandbox| sandbox.flags & REPORT_FLOWS != 0);
    if wanted && is_new(hook, seen, verdict) {
        write(hook, seen, verdict);
    }
}

/// TCP: the opening segment. Other protocols: the first packet to a destination that is not
/// remembered. What answers an inbound connection is no flow of the sandbox.
#[inline(never)]
fn is_new(hook: &Hook, seen: &Seen, verdict: Verdict) -> bool {
    let reported =
        verdict.reason != Reason::Reply as u8 && verdict.reason != Reason::Neighbor as u8;
    if !reported || seen.header.part == Part::Later {
        return false;
    }
    if seen.header.protocol == TCP {
        return seen.transport.opens;
    }
    let key = FlowKey {
        owner: owner(hook),
        port: seen.transport.destination_port,
        protocol: seen.header.protocol,
        padding: 0,
        destination: bytes(seen.header.destination),
    };
    let known = FLOWS.get_ptr(key).is_some();
    if !known {
        // Not remembered, it is reported again.
        let _ = FLOWS.insert(key, 0, 0);
    }
    !known
}

/// Writes a record, if the bucket has a token and the ring has room; counts it otherwise.
#[inline(never)]
pub fn write(hook: &Hook, seen: &Seen, verdict: Verdict) {
    let Some(limits) = LIMITS.get_ptr_mut(hook.slot) else { return };
    // SAFETY: valid while the program runs; a race lets a token more or less through, or miscounts
    // a lost event.
    let limits = unsafe { &mut *limits };
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(next) = limit::EVENTS.take(limits.events, now) else {
        limits.events_suppressed += 1;
        return;
    };
    limits.events = next;
    let Some(mut record) = EVENTS.reserve(0) else {
        limits.events_lost += 1;
        return;
    };
    let (source_port, destination_port) = ports(seen);
    record.write(Event {
        time_ns: now,
        slot: hook.slot,
        rule: verdict.rule,
        length: hook.length,
        policy: verdict.policy,
        ethertype: u16::from_be_bytes(seen.ethertype),
        source_port,
        destination_port,
        protocol: seen.header.protocol,
        reason: verdict.reason,
        padding: [0; 2],
        source: bytes(seen.header.source),
        destination: bytes(seen.header.destination),
    });
    record.submit(u64::from(BPF_RB_NO_WAKEUP));
}

/// Ports, or ICMP type and code.
#[inline(always)]
fn ports(seen: &Seen) -> (u16, u16) {
    let transport = &seen.transport;
    if matches!(seen.header.protocol, ICMP | ICMPV6) {
        (transport.kind.into(), transport.code.into())
    } else {
        (transport.source_port, transport.destination_port)
    }
}
