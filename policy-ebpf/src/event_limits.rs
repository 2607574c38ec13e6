//! Which events and replies a sandbox may still cause: its token buckets, and its share of the ring.
//!
//! Reading the clock takes longer than all else that is done for a denied packet. So a bucket that
//! was found empty counts as empty for the rest of the jiffy (1 to 10 ms), which the kernel has in a
//! variable. That delays a token, but loses none.
//!
//! Global functions, so that the verifier checks each of them once. CPUs may race on a bucket, which
//! admits a token more or less, or miscounts an event.

use aya_ebpf::{
    bindings::BPF_RB_AVAIL_DATA,
    helpers::{bpf_jiffies64, bpf_ktime_get_ns, bpf_ringbuf_query},
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
    let jiffy = current_jiffy();
    if limits.no_events_in == jiffy {
        limits.events_suppressed += 1;
        return 0;
    }
    let now = current_time();
    let Some(next) = EVENT_RATE_LIMIT.take_token(limits.event_bucket, now) else {
        limits.no_events_in = jiffy;
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
    let jiffy = current_jiffy();
    if limits.no_replies_in == jiffy {
        return 0;
    }
    let Some(next) = REJECT_RATE_LIMIT.take_token(limits.reject_bucket, current_time()) else {
        limits.no_replies_in = jiffy;
        return 0;
    };
    limits.reject_bucket = next;
    1
}

/// Returns whether a denied packet causes neither an event nor, if it would be `answered`, a reply,
/// because the buckets are known to be empty. Counts the event as suppressed if so.
#[inline(always)]
pub(crate) fn suppress_event_and_reply(slot: u32, answered: bool) -> bool {
    let Some(limits) = limits_of(slot) else { return false };
    let jiffy = current_jiffy();
    let is_suppressed =
        limits.no_events_in == jiffy && (!answered || limits.no_replies_in == jiffy);
    if is_suppressed {
        limits.events_suppressed += 1;
    }
    is_suppressed
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

/// The number of the current jiffy, which is never 0. The verifier replaces the call by a load.
#[inline(always)]
fn current_jiffy() -> u64 {
    // SAFETY: the helper reads a variable.
    unsafe { bpf_jiffies64() }
}

#[inline(always)]
fn current_time() -> u64 {
    // SAFETY: the helper reads a clock.
    unsafe { bpf_ktime_get_ns() }
}
