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

/// Value of [`LIMITS`](crate::bpf_names::LIMITS), by slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RateLimiterState {
    /// Bucket of [`REJECT_RATE_LIMIT`].
    pub reject_bucket: u64,
    /// Bucket of [`EVENT_RATE_LIMIT`].
    pub event_bucket: u64,
    /// Number of events suppressed because the bucket was empty.
    pub events_suppressed: u64,
    /// Number of events lost because the ring buffer was full.
    pub events_lost: u64,
}

impl_pod!(RateLimiterState, 32);

#[cfg(test)]
mod tests {
    use super::*;

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
