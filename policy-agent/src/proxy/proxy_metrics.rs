//! What the proxy counts for all sandboxes together. What it counts for each is in its
//! [`Tally`](crate::agent::Tally).

use prometheus_client::metrics::gauge::Gauge;

pub use crate::agent::ConnectionProtocol;

/// The proxy's metrics. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct ProxyMetrics {
    /// Connections that there are.
    pub active_connections: Gauge,
}
