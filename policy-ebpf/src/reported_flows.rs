//! Datagram flows that were reported, so that each is reported once.

use policy_common::flow::REPORTED_FLOW_PAGES;

use crate::{
    flow_table::{
        TICKS_PER_SECOND, current_ticks, find_flow, find_or_add_set, find_set, flow_at,
        least_useful_place, live_state, replace_flow, set_state,
    },
    inbound_connections::hash_flow,
    ip_header::AddressWords,
    maps::FLOWS,
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
};

/// Time without a packet after which a flow is over. The next packet starts a new one.
const IDLE_TICKS: u64 = 300 * TICKS_PER_SECOND;
/// Least extension of that time. Smaller ones are not worth a write.
const IDLE_STEP_TICKS: u64 = 10 * TICKS_PER_SECOND;
const NO_ADDRESS: AddressWords = [0; 4];

/// Whether a datagram starts a flow: no other was sent to its destination and port lately.
#[inline(always)]
pub(crate) fn starts_datagram_flow(hook: &PacketContext, headers: &ParsedHeaders) -> bool {
    let port = headers.transport_header.destination_port;
    let words = u64::from(port) | u64::from(headers.ip_header.protocol) << 32;
    let flow = hash_flow(hook, words, headers.ip_header.destination, NO_ADDRESS);
    note_datagram_flow(hook.slot, flow) != 0
}

/// Returns 1 if the flow is new. If it cannot be stored, it is reported again.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_datagram_flow(slot: u32, fingerprint: u64) -> u32 {
    let Some(set) = find_or_add_set(&FLOWS, REPORTED_FLOW_PAGES, slot, fingerprint) else {
        return 1;
    };
    let now = current_ticks();
    let Some(flow) = find_flow(set, fingerprint) else {
        let place = flow_at(set, reported_flow_place(slot, fingerprint));
        replace_flow(place, fingerprint, now + IDLE_TICKS);
        return 1;
    };
    let until = live_state(flow, now);
    if until < now + IDLE_TICKS - IDLE_STEP_TICKS {
        set_state(flow, now + IDLE_TICKS);
    }
    (until == 0).into()
}

/// The index of the place for a new flow.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reported_flow_place(slot: u32, fingerprint: u64) -> u32 {
    find_set(&FLOWS, REPORTED_FLOW_PAGES, slot, fingerprint)
        .map_or(0, |set| least_useful_place(set, current_ticks()))
}
