//! Which events and replies a sandbox may still cause: its token buckets, and its share of the ring.
//!
//! Global functions, so that the verifier checks each of them once. CPUs may race on a bucket, which
//! admits a token more or less, or miscounts an event.

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{bpf_ktime_get_ns, bpf_ringbuf_query},
};
use policy_common::{
    event::EVENT_RING_SHARED_BYTES,
    rate_limit::{
        EVENT_RATE_LIMIT, REJECT_RATE_LIMIT, RESERVED_EVENT_RATE_LIMIT, RateLimiterState,
    },
};

use crate::maps::{EVENTS, LIMITS};

/// The time, if the sandbox may report an event. Otherwise returns 0 and counts the event as
/// suppressed or lost.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_event_token(slot: u32) -> u64 {
    let Some(limits) = limits_of(slot) else { return 0 };
    let now = current_time();
    let Some(next) = EVENT_RATE_LIMIT.take_token(limits.event_bucket, now) else {
        limits.events_suppressed += 1;
        return 0;
    };
    limits.event_bucket = next;
    if is_ring_in_demand() {
        // The sandbox has a share of the rest.
        let bucket = limits.reserved_event_bucket;
        let Some(next) = RESERVED_EVENT_RATE_LIMIT.take_token(bucket, now) else {
            limits.events_lost += 1;
            return 0;
        };
        limits.reserved_event_bucket = next;
    }
    now
}

/// Counts an event for which the ring had no room.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn count_lost_event(slot: u32) -> u32 {
    let Some(limits) = limits_of(slot) else { return 0 };
    limits.events_lost += 1;
    1
}

/// Returns 1 if the sandbox may get a reply to a denied packet.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn take_reply_token(slot: u32) -> u32 {
    let Some(limits) = limits_of(slot) else { return 0 };
    let Some(next) = REJECT_RATE_LIMIT.take_token(limits.reject_bucket, current_time()) else {
        return 0;
    };
    limits.reject_bucket = next;
    1
}

#[inline(always)]
fn limits_of(slot: u32) -> Option<&'static mut RateLimiterState> {
    // SAFETY: the kernel frees no element of an array. On races see the module's documentation.
    LIMITS.get_ptr_mut(slot).map(|limits| unsafe { &mut *limits })
}

#[inline(always)]
fn is_ring_in_demand() -> bool {
    let ring = (&raw const EVENTS).cast_mut().cast();
    // SAFETY: the helper reads the ring's positions.
    unsafe { bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA.into()) > EVENT_RING_SHARED_BYTES as u64 }
}

#[inline(always)]
fn current_time() -> u64 {
    // SAFETY: the helper reads a clock.
    unsafe { bpf_ktime_get_ns() }
}
