//! The flow tables: flows of each sandbox in pages of sets. See `policy_common::flow`.
//!
//! CPUs change a page without a lock. Each word is written at once, and a flow counts only if its
//! whole fingerprint is there and its time is not over. So a race may lose a flow or a change of its
//! state, but cannot make up a flow.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_ktime_get_ns};
use policy_common::flow::{
    FLOW_SETS_PER_PAGE, FLOW_TICK_SHIFT, FLOW_TIME_MASK, FLOW_USED, FLOWS_PER_SET, Flow, FlowPage,
    FlowSet,
};

use crate::{constant_length::length_as_u32, maps::FlowTable};

pub(crate) const TICKS_PER_SECOND: u64 = 1_000_000_000 >> FLOW_TICK_SHIFT;

/// The content of a new page. Too large for the stack.
static EMPTY_PAGE: FlowPage = FlowPage {
    sets: [FlowSet {
        incomplete_until: 0,
        flows: [Flow { fingerprint: 0, state: 0 }; FLOWS_PER_SET],
    }; FLOW_SETS_PER_PAGE],
};

/// The set that may hold a flow. `PAGES` is the number of pages of all slots, `own` of one slot.
#[inline(always)]
pub(crate) fn find_set<const PAGES: usize>(
    table: &FlowTable<PAGES>,
    own: u32,
    slot: u32,
    fingerprint: u64,
) -> Option<*mut FlowSet> {
    let page = table.get_ptr_mut(page_key(own, slot, fingerprint))?;
    Some(set_of_page(page, fingerprint))
}

/// The same, but adds the page if it is missing. `None` without memory.
#[inline(always)]
#[expect(clippy::needless_borrows_for_generic_args, reason = "a copy would not fit on the stack")]
pub(crate) fn find_or_add_set<const PAGES: usize>(
    table: &FlowTable<PAGES>,
    own: u32,
    slot: u32,
    fingerprint: u64,
) -> Option<*mut FlowSet> {
    let key = page_key(own, slot, fingerprint);
    if table.get_ptr_mut(key).is_none() {
        // If another CPU was faster, its page is found.
        let _ = table.insert(key, &EMPTY_PAGE, BPF_NOEXIST.into());
    }
    find_set(table, own, slot, fingerprint)
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the lowest bits select the page")]
fn page_key(own: u32, slot: u32, fingerprint: u64) -> u32 {
    (slot * own) | fingerprint as u32 & (own - 1)
}

#[inline(always)]
fn set_of_page(page: *mut FlowPage, fingerprint: u64) -> *mut FlowSet {
    let set = ((fingerprint >> 32) * FLOW_SETS_PER_PAGE as u64) >> 32;
    // SAFETY: the kernel frees no page, and the index is in bounds.
    unsafe { (&raw mut (*page).sets).cast::<FlowSet>().add(set as usize) }
}

/// The flow with this fingerprint.
#[inline(always)]
pub(crate) fn find_flow(set: *mut FlowSet, fingerprint: u64) -> Option<*mut Flow> {
    let mut at = 0;
    while at < FLOWS_PER_SET {
        let flow = flow_of_set(set, at);
        // SAFETY: the kernel frees no page.
        if unsafe { (*flow).fingerprint } == fingerprint {
            return Some(flow);
        }
        at += 1;
    }
    None
}

/// The index of the place for a new flow: an unused one, or that of the flow which matters least.
/// Those are flows that are over or end, then flows that the sandbox has not used, then the one used
/// least recently.
///
/// Call this only from global functions that return the index. There the verifier need not tell the
/// results apart; otherwise it would follow every order of the flows' states.
#[inline(always)]
pub(crate) fn least_useful_place(set: *mut FlowSet, now: u64) -> u32 {
    let (mut place, mut lowest) = (0, u64::MAX);
    let mut at = 0;
    while at < const { length_as_u32(FLOWS_PER_SET) } {
        // SAFETY: the kernel frees no page.
        let state = unsafe { (*flow_of_set(set, at as usize)).state };
        let rank = if is_live(state, now) { state & (FLOW_USED | FLOW_TIME_MASK) } else { 0 };
        if rank < lowest {
            (place, lowest) = (at, rank);
        }
        at += 1;
    }
    place
}

/// The flow at an index that a global function has returned. The compiler knows that it is in
/// bounds and would leave out the mask, but the verifier does not. Hence the volatile read.
#[inline(always)]
pub(crate) fn flow_at(set: *mut FlowSet, place: u32) -> *mut Flow {
    // SAFETY: a local.
    let place = unsafe { core::ptr::read_volatile(&raw const place) };
    flow_of_set(set, place as usize & (FLOWS_PER_SET - 1))
}

#[inline(always)]
fn flow_of_set(set: *mut FlowSet, at: usize) -> *mut Flow {
    // SAFETY: the kernel frees no page, and the index is in bounds.
    unsafe { (&raw mut (*set).flows).cast::<Flow>().add(at) }
}

/// Whether a flow with this state has not ended.
#[inline(always)]
pub(crate) fn is_live(state: u64, now: u64) -> bool {
    state & FLOW_TIME_MASK > now
}

/// The state of a flow, or 0 if its time is over.
#[inline(always)]
pub(crate) fn live_state(flow: *const Flow, now: u64) -> u64 {
    // SAFETY: the kernel frees no page.
    let state = unsafe { (*flow).state };
    if is_live(state, now) { state } else { 0 }
}

/// Changes the state of a flow.
#[inline(always)]
pub(crate) fn set_state(flow: *mut Flow, state: u64) {
    // SAFETY: the kernel frees no page. Words are written at once.
    unsafe { core::ptr::write_volatile(&raw mut (*flow).state, state) };
}

/// Puts a new flow into a place.
#[inline(always)]
pub(crate) fn replace_flow(flow: *mut Flow, fingerprint: u64, state: u64) {
    // The old flow ends first, so that the new one does not get its state.
    set_state(flow, 0);
    // SAFETY: as above.
    unsafe { core::ptr::write_volatile(&raw mut (*flow).fingerprint, fingerprint) };
    set_state(flow, state);
}

/// The time of the monotonic clock in ticks.
#[inline(always)]
pub(crate) fn current_ticks() -> u64 {
    // SAFETY: the helper reads a clock.
    unsafe { bpf_ktime_get_ns() >> FLOW_TICK_SHIFT }
}
