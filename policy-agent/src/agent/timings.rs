//! How long changes take until the kernel enforces them.

use std::time::Duration;

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// The durations of enforced changes, in seconds.
#[derive(Clone, Debug)]
pub struct ApplyTimings(Histogram);

impl Default for ApplyTimings {
    fn default() -> Self {
        // From 1 ms, which is less than a grace period of the kernel, to 8 s.
        Self(Histogram::new(exponential_buckets(0.001, 2.0, 14)))
    }
}

impl ApplyTimings {
    /// Records the duration of one change.
    pub(crate) fn observe(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    /// The histogram of the durations, for the metrics.
    #[must_use]
    pub(crate) fn histogram(&self) -> &Histogram {
        &self.0
    }
}
