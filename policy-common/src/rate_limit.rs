//! Token buckets, per sandbox: how often the kernel answers denied packets and reports events.
//!
//! Each bucket is one number, the *theoretical arrival time* of the generic cell rate algorithm
//! (ITU-T I.371): a token is there when that time is at most a burst ahead of now. Two CPUs may
//! race on it, which lets a token more or less through: buckets never change a verdict.

use crate::impl_pod;

/// Rate and burst of a bucket.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// Nanoseconds in which one token comes.
    pub interval_ns: u64,
    /// Nanoseconds' worth of tokens that can be saved up.
    pub burst_ns: u64,
}

impl RateLimit {
    const fn per_second(tokens: u64, burst: u64) -> Self {
        let interval_ns = 1_000_000_000 / tokens;
        Self { interval_ns, burst_ns: interval_ns * burst }
    }

    /// Takes a token from the bucket `arrival` at the time `now`, in nanoseconds: the bucket's new
    /// state, or `None` when it is empty.
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

/// Answers to denied packets, per sandbox.
pub const REJECT_RATE_LIMIT: RateLimit = RateLimit::per_second(1_000, 200);
/// Events, per sandbox.
pub const EVENT_RATE_LIMIT: RateLimit = RateLimit::per_second(200, 400);

/// Value of [`LIMITS`](crate::bpf_names::LIMITS), by slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RateLimiterState {
    /// Bucket of [`REJECT_RATE_LIMIT`].
    pub reject_bucket: u64,
    /// Bucket of [`EVENT_RATE_LIMIT`].
    pub event_bucket: u64,
    /// Events not written because the bucket was empty.
    pub events_suppressed: u64,
    /// Events not written because the ring was full.
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
