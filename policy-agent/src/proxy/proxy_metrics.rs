//! Metrics of all sandboxes together. Those of one sandbox are in its
//! [`SandboxProxyCounters`](crate::agent::SandboxProxyCounters).

use prometheus_client::metrics::gauge::Gauge;

pub(super) use crate::agent::ConnectionProtocol;

/// The proxy's metrics. Clones share the same counters.
#[derive(Clone, Debug, Default)]
pub struct ProxyMetrics {
    /// Open connections.
    pub active_connections: Gauge,
}
