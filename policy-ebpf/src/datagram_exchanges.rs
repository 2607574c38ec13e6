//! The state of exchanges over UDP and ICMP echo that the host began with the sandbox.

use policy_common::flow::{DATAGRAM_FLOW_PAGES, FLOW_USED};

use crate::{
    endpoint::note_inbound_datagram,
    flow_table::{
        TICKS_PER_SECOND, current_ticks, find_flow, find_or_add_set, find_set, flow_at,
        least_useful_place, live_state, replace_flow, set_state,
    },
    maps::INBOUND_DGRAM,
};

/// Time without a datagram in either direction after which an exchange is over (RFC 4787, REQ-5).
const IDLE_TICKS: u64 = 300 * TICKS_PER_SECOND;
/// Least extension of that time. Smaller ones are not worth a write.
const IDLE_STEP_TICKS: u64 = 10 * TICKS_PER_SECOND;

/// The host has sent a datagram to the sandbox.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn open_inbound_datagram(slot: u32, fingerprint: u64) -> u32 {
    note_inbound_datagram(slot);
    // Without a place for it, replies are judged like outbound packets.
    let Some(set) = find_or_add_set(&INBOUND_DGRAM, DATAGRAM_FLOW_PAGES, slot, fingerprint) else {
        return 0;
    };
    let now = current_ticks();
    let Some(flow) = find_flow(set, fingerprint) else {
        let place = flow_at(set, inbound_datagram_place(slot, fingerprint));
        replace_flow(place, fingerprint, now + IDLE_TICKS);
        return 1;
    };
    let used = live_state(flow, now) & FLOW_USED;
    if live_state(flow, now) & !FLOW_USED < now + IDLE_TICKS - IDLE_STEP_TICKS {
        set_state(flow, used | (now + IDLE_TICKS));
    }
    1
}

/// The index of the place for a new flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inbound_datagram_place(slot: u32, fingerprint: u64) -> u32 {
    find_set(&INBOUND_DGRAM, DATAGRAM_FLOW_PAGES, slot, fingerprint)
        .map_or(0, |set| least_useful_place(set, current_ticks()))
}

/// A datagram comes from the sandbox. Returns 1 if it belongs to an exchange that the host began.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn reply_inbound_datagram(slot: u32, fingerprint: u64) -> u32 {
    let Some(set) = find_set(&INBOUND_DGRAM, DATAGRAM_FLOW_PAGES, slot, fingerprint) else {
        return 0;
    };
    let Some(flow) = find_flow(set, fingerprint) else { return 0 };
    let now = current_ticks();
    let state = live_state(flow, now);
    if state == 0 {
        return 0;
    }
    if state < FLOW_USED | (now + IDLE_TICKS - IDLE_STEP_TICKS) {
        set_state(flow, FLOW_USED | (now + IDLE_TICKS));
    }
    1
}
