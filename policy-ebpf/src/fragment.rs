//! Line 1 for fragments: a later fragment passes if the first fragment of its datagram passed.
//!
//! The first fragment is judged like a whole datagram and must contain the whole transport header.
//! Later fragments carry no ports and are matched by source, destination, protocol and
//! identification.

use policy_common::{
    flow::{FRAGMENT_PAGES, FRAGMENT_REASON_SHIFT},
    reason::Reason,
    verdict::Verdict,
};

use crate::{
    flow_table::{
        TICKS_PER_SECOND, current_ticks, find_flow, find_or_add_set, find_set, flow_at,
        least_useful_place, live_state, replace_flow, set_state,
    },
    inbound_connections::hash_flow,
    ip_header::IpHeader,
    maps::FRAGMENTS,
    packet_context::PacketContext,
    transport,
};

/// Maximum time between the fragments of a datagram, in ticks. Linux uses the same limit for
/// reassembly.
const REASSEMBLY_TIMEOUT_TICKS: u64 = 30 * TICKS_PER_SECOND;

/// Stores that a first fragment passes, and why. Returns `false` if it cannot be stored.
#[inline(never)]
pub(crate) fn remember_first_fragment(
    hook: &PacketContext,
    header: &IpHeader,
    passed: Verdict,
) -> bool {
    let datagram = datagram_fingerprint(hook, header, passed.policy_id);
    store_datagram(hook.slot, datagram, passed.reason_code.into()) != 0
}

/// Returns the reason code for a later fragment. The first fragment must have passed under the
/// current policy.
#[inline(never)]
pub(crate) fn judge_later_fragment(hook: &PacketContext, header: &IpHeader, policy: u16) -> u8 {
    if transport::overlaps_transport_header(header) {
        return Reason::Fragment as u8;
    }
    let reason_code = find_datagram(hook.slot, datagram_fingerprint(hook, header, policy));
    #[expect(clippy::cast_possible_truncation, reason = "a reason's code has 8 bits")]
    let reason_code = reason_code as u8;
    reason_code
}

/// Identifies a fragmented datagram that is judged by this policy.
#[inline(always)]
fn datagram_fingerprint(hook: &PacketContext, header: &IpHeader, policy: u16) -> u64 {
    let words = u64::from(header.identification) | u64::from(header.protocol) << 32;
    hash_flow(hook, words, header.destination, header.source) ^ u64::from(policy)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn store_datagram(slot: u32, datagram: u64, reason_code: u32) -> u32 {
    let Some(set) = find_or_add_set(&FRAGMENTS, FRAGMENT_PAGES, slot, datagram) else { return 0 };
    let expiry = current_ticks() + REASSEMBLY_TIMEOUT_TICKS;
    let state = expiry | u64::from(reason_code) << FRAGMENT_REASON_SHIFT;
    match find_flow(set, datagram) {
        Some(flow) => set_state(flow, state),
        None => replace_flow(flow_at(set, datagram_place(slot, datagram)), datagram, state),
    }
    1
}

/// The index of the place for a new datagram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn datagram_place(slot: u32, datagram: u64) -> u32 {
    find_set(&FRAGMENTS, FRAGMENT_PAGES, slot, datagram)
        .map_or(0, |set| least_useful_place(set, current_ticks()))
}

/// The reason code with which the datagram's first fragment passed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn find_datagram(slot: u32, datagram: u64) -> u32 {
    let Some(set) = find_set(&FRAGMENTS, FRAGMENT_PAGES, slot, datagram) else {
        return Reason::Fragment as u32;
    };
    match find_flow(set, datagram).map_or(0, |flow| live_state(flow, current_ticks())) {
        0 => Reason::Fragment as u32,
        state => (state >> FRAGMENT_REASON_SHIFT) as u32 & 0xff,
    }
}
