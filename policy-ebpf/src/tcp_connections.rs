//! The state of TCP connections: those that were opened to the sandbox, and those that the sandbox
//! itself opened or closed lately.
//!
//! The second kind is for the simultaneous open (RFC 9293, 3.5): a SYN of the peer for a connection
//! that the sandbox has begun does not make it an inbound one. Otherwise an accomplice could make
//! an outbound connection outlive a tightened policy, through masquerading too.

use policy_common::flow::{
    FLOW_ENDED, FLOW_FIN_RECEIVED, FLOW_FIN_SENT, FLOW_TIME_MASK, FLOW_USED, TCP_FLOW_PAGES,
};

use crate::{
    endpoint::note_inbound_tcp,
    flow_table::{
        TICKS_PER_SECOND, current_ticks, find_flow, find_or_add_set, find_set, flow_at, is_live,
        least_useful_place, live_state, replace_flow, set_state,
    },
    maps::{INBOUND_TCP, OUTBOUND_TCP},
    transport::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
};

/// Time without a segment from the sandbox after which an inbound connection is over. Linux's
/// connection tracking waits as long.
const IDLE_TICKS: u64 = 5 * 86_400 * TICKS_PER_SECOND;
/// Least extension of that time. Smaller ones are not worth a write.
const IDLE_STEP_TICKS: u64 = 60 * TICKS_PER_SECOND;
/// Time after a reset or the second FIN during which segments may be repeated.
const ENDING_TICKS: u64 = 120 * TICKS_PER_SECOND;
/// Time for which a connection of the sandbox is remembered after its SYN or FIN. Connection
/// tracking expects the next segment of a handshake or of an end for 120 s.
const OUTBOUND_TICKS: u64 = 150 * TICKS_PER_SECOND;

/// A SYN has come to the sandbox: adds the connection to the inbound ones.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn open_inbound_tcp(slot: u32, fingerprint: u64) -> u32 {
    note_inbound_tcp(slot);
    // Without a place for it, replies are judged like outbound packets.
    let Some(set) = find_or_add_set(&INBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint) else {
        return 0;
    };
    let now = current_ticks();
    match find_flow(set, fingerprint) {
        Some(flow) => set_state(flow, now + IDLE_TICKS),
        None => {
            let place = flow_at(set, inbound_tcp_place(slot, fingerprint));
            replace_flow(place, fingerprint, now + IDLE_TICKS);
        }
    }
    1
}

/// The index of the place for a new flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inbound_tcp_place(slot: u32, fingerprint: u64) -> u32 {
    find_set(&INBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint)
        .map_or(0, |set| least_useful_place(set, current_ticks()))
}

/// A segment with these flags comes from the sandbox. Returns 1 if it belongs to an inbound
/// connection.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn reply_inbound_tcp(slot: u32, fingerprint: u64, tcp_flags: u32) -> u32 {
    let Some(set) = find_set(&INBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint) else { return 0 };
    let Some(flow) = find_flow(set, fingerprint) else { return 0 };
    let now = current_ticks();
    let state = live_state(flow, now);
    if state == 0 {
        return 0;
    }
    let next = state_after_reply(state, now, tcp_flags);
    if next != state {
        set_state(flow, next);
    }
    1
}

/// The state of an inbound connection after a segment from the sandbox.
#[inline(always)]
fn state_after_reply(state: u64, now: u64, tcp_flags: u32) -> u64 {
    let has = |flag: u8| tcp_flags & u32::from(flag) != 0;
    let flags = state & !FLOW_TIME_MASK;
    if flags & FLOW_ENDED != 0 || has(TCP_SYN) {
        return state; // the second segment of a handshake also answers floods
    }
    if has(TCP_RST) || has(TCP_FIN) && flags & FLOW_FIN_RECEIVED != 0 {
        return FLOW_ENDED | (now + ENDING_TICKS);
    }
    let next = flags | FLOW_USED | if has(TCP_FIN) { FLOW_FIN_SENT } else { 0 };
    let is_recent = (state & FLOW_TIME_MASK) + IDLE_STEP_TICKS > now + IDLE_TICKS;
    if next == flags && is_recent { state } else { next | (now + IDLE_TICKS) }
}

/// A FIN or a reset has come to the sandbox. A reset may be forged: it ends the connection only if
/// the sandbox falls silent.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn close_inbound_tcp(slot: u32, fingerprint: u64, tcp_flags: u32) -> u32 {
    let Some(set) = find_set(&INBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint) else { return 0 };
    let Some(flow) = find_flow(set, fingerprint) else { return 0 };
    let now = current_ticks();
    let state = live_state(flow, now);
    if state == 0 || state & FLOW_ENDED != 0 {
        return 0;
    }
    let ending = (state & FLOW_TIME_MASK).min(now + ENDING_TICKS);
    if tcp_flags & u32::from(TCP_RST) != 0 {
        set_state(flow, state & !FLOW_TIME_MASK | ending);
    } else if state & FLOW_FIN_SENT != 0 {
        set_state(flow, FLOW_ENDED | ending);
    } else {
        set_state(flow, state | FLOW_FIN_RECEIVED);
    }
    1
}

/// The sandbox opens or closes a connection with a segment that its policy allows.
#[inline(always)]
pub(crate) fn note_allowed_segment(slot: u32, fingerprint: u64, tcp_flags: u8) {
    if tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN {
        end_inbound_tcp(slot, fingerprint);
        remember_outbound_tcp(slot, fingerprint);
        return;
    }
    let is_inbound = reply_inbound_tcp(slot, fingerprint, tcp_flags.into()) != 0;
    if !is_inbound && tcp_flags & TCP_FIN != 0 {
        remember_outbound_tcp(slot, fingerprint);
    }
}

/// The sandbox has opened a connection with the addresses and ports of an inbound one, which is
/// therefore over.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn end_inbound_tcp(slot: u32, fingerprint: u64) -> u32 {
    let Some(set) = find_set(&INBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint) else { return 0 };
    let Some(flow) = find_flow(set, fingerprint) else { return 0 };
    set_state(flow, 0);
    1
}

/// Remembers a connection of the sandbox. If this displaces another that has to be remembered, the
/// set is incomplete for as long.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn remember_outbound_tcp(slot: u32, fingerprint: u64) -> u32 {
    let Some(set) = find_or_add_set(&OUTBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint) else {
        return 0;
    };
    let now = current_ticks();
    let until = now + OUTBOUND_TICKS;
    if let Some(flow) = find_flow(set, fingerprint) {
        set_state(flow, until);
        return 1;
    }
    let place = flow_at(set, outbound_tcp_place(slot, fingerprint));
    let displaced = live_state(place, now);
    // SAFETY: the kernel frees no page.
    let incomplete_until = unsafe { &mut (*set).incomplete_until };
    if displaced > *incomplete_until {
        *incomplete_until = displaced;
    }
    replace_flow(place, fingerprint, until);
    1
}

/// The index of the place for a new flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn outbound_tcp_place(slot: u32, fingerprint: u64) -> u32 {
    find_set(&OUTBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint)
        .map_or(0, |set| least_useful_place(set, current_ticks()))
}

/// Whether the sandbox itself has opened or closed a connection lately, for a SYN that comes to it.
/// In doubt it has. The SYN extends the time: connection tracking expects the answer from then on.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn is_outbound_tcp(slot: u32, fingerprint: u64) -> u32 {
    let Some(set) = find_set(&OUTBOUND_TCP, TCP_FLOW_PAGES, slot, fingerprint) else { return 0 };
    let now = current_ticks();
    // SAFETY: the kernel frees no page.
    let is_incomplete = is_live(unsafe { (*set).incomplete_until }, now);
    let Some(flow) = find_flow(set, fingerprint) else { return is_incomplete.into() };
    if live_state(flow, now) == 0 {
        return is_incomplete.into();
    }
    set_state(flow, now + OUTBOUND_TICKS);
    1
}
