//! What the proxy counts for all sandboxes together. What it counts for each is in its
//! [`Tally`](crate::agent::Tally).

use prometheus_client::metrics::gauge::Gauge;

pub use crate::agent::Protocol;

/// The proxy's metrics. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Connections that there are.
    pub active: Gauge,
}
