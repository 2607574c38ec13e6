//! Metrics of all sandboxes together. Those of one sandbox are in its
//! [`SandboxProxyCounters`](crate::agent::SandboxProxyCounters).

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
};

pub(super) use crate::agent::ConnectionProtocol;

/// Whether a connection to a server was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DialLabels {
    result: &'static str,
}

/// The proxy's metrics. Clones share the same counters.
#[derive(Clone, Debug)]
pub struct ProxyMetrics {
    /// Open connections.
    pub active_connections: Gauge,
    /// How long it took to look names up and to connect to their servers, in seconds.
    pub dials: Family<DialLabels, Histogram, fn() -> Histogram>,
}

impl Default for ProxyMetrics {
    fn default() -> Self {
        Self {
            active_connections: Gauge::default(),
            // From 1 ms, as within a data centre, to 16 s, which is longer than the time limits.
            dials: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.001, 2.0, 15))
            }),
        }
    }
}

impl ProxyMetrics {
    /// Records how long a connection to a server took, or the failure to make one.
    pub(super) fn record_dial(&self, duration: Duration, is_connected: bool) {
        let result = if is_connected { "connected" } else { "failed" };
        self.dials.get_or_create(&DialLabels { result }).observe(duration.as_secs_f64());
    }
}
