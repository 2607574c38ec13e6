//! Token buckets that limit, per sandbox, how often the kernel programs reply to denied packets and
//! report events.
//!
//! A bucket is one number, the *theoretical arrival time* of the generic cell rate algorithm (ITU-T
//! I.371). A token is available if that time is at most one burst ahead of the current time. Two
//! CPUs may race on a bucket, which admits a token more or less. This is acceptable because buckets
//! never change a verdict.

use crate::impl_pod;

/// The rate and burst of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Time per token in nanoseconds.
    pub interval_ns: u64,
    /// Maximum accumulated burst in nanoseconds.
    pub burst_ns: u64,
}

impl RateLimit {
    const fn per_second(tokens: u64, burst: u64) -> Self {
        let interval_ns = 1_000_000_000 / tokens;
        Self { interval_ns, burst_ns: interval_ns * burst }
    }

    /// Takes a token from the bucket `arrival` at the time `now`, both in nanoseconds. Returns the
    /// bucket's new state, or `None` if the bucket is empty.
    #[inline(always)]
    #[must_use]
    pub const fn take_token(self, arrival: u64, now: u64) -> Option<u64> {
        let start = if arrival > now { arrival } else { now };
        if start - now > self.burst_ns {
            return None;
        }
        Some(start + self.interval_ns)
    }
}

/// Limit of replies to denied packets, per sandbox.
pub const REJECT_RATE_LIMIT: RateLimit = RateLimit::per_second(1_000, 200);
/// Limit of events, per sandbox.
pub const EVENT_RATE_LIMIT: RateLimit = RateLimit::per_second(200, 400);

/// Limit of events per sandbox while the ring is fuller than
/// [`EVENT_RING_SHARED_BYTES`](crate::event::EVENT_RING_SHARED_BYTES). What all sandboxes may write
/// in a tenth of a second, the longest interval between two reads, fits into the rest of the ring. So
/// sandboxes that write as much as they may cannot hide the events of another.
pub const RESERVED_EVENT_RATE_LIMIT: RateLimit = RateLimit::per_second(20, 10);

/// Value of [`LIMITS`](crate::bpf_names::LIMITS), by slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RateLimiterState {
    /// Bucket of [`REJECT_RATE_LIMIT`].
    pub reject_bucket: u64,
    /// Bucket of [`EVENT_RATE_LIMIT`].
    pub event_bucket: u64,
    /// Bucket of [`RESERVED_EVENT_RATE_LIMIT`].
    pub reserved_event_bucket: u64,
    /// Number of events suppressed because the bucket was empty.
    pub events_suppressed: u64,
    /// Number of events lost because the ring buffer had no room for them.
    pub events_lost: u64,
    /// The jiffy in which the bucket of events was last found empty.
    pub no_events_in: u64,
    /// The jiffy in which the bucket of replies was last found empty.
    pub no_replies_in: u64,
    /// Zero. Every entry has a cache line of its own.
    pub reserved: u64,
}

impl_pod!(RateLimiterState, 64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        endpoint::MAX_SANDBOXES,
        event::{EVENT_RING_BYTES, EVENT_RING_SHARED_BYTES, VerdictEvent},
    };

    #[test]
    fn every_sandbox_has_its_share_of_the_ring() {
        const RECORD_BYTES: usize = size_of::<VerdictEvent>() + 8; // with the kernel's header
        let mut taken = 0;
        let (mut bucket, start) = (0, 1_000_000_000_000);
        for now in (start..=start + 100_000_000).step_by(1_000_000) {
            while let Some(next) = RESERVED_EVENT_RATE_LIMIT.take_token(bucket, now) {
                (bucket, taken) = (next, taken + 1);
            }
        }
        let all = taken * MAX_SANDBOXES as usize * RECORD_BYTES;
        let room = EVENT_RING_BYTES - EVENT_RING_SHARED_BYTES;
        assert!(all <= room, "{taken} events of each sandbox take {all} of {room} bytes");
    }

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let (mut bucket, now) = (0, 1_000_000_000_000);
        let mut taken = 0;
        while let Some(next) = REJECT_RATE_LIMIT.take_token(bucket, now) {
            (bucket, taken) = (next, taken + 1);
        }
        assert_eq!(taken, 201);
        assert!(
            REJECT_RATE_LIMIT.take_token(bucket, now + REJECT_RATE_LIMIT.interval_ns).is_some()
        );
    }
}
