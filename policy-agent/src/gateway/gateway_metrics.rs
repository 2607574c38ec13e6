//! The gateway's metrics, and the log of connections that led to no request.

use std::{io, net::IpAddr};

use hyper::StatusCode;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::sandbox_requests::SandboxRequests;
use crate::logging::ACCESS_TARGET;

/// Labels of the request counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabels {
    code: u16,
}

/// The gateway's metrics. Clones share the same counters.
#[derive(Clone, Debug, Default)]
pub struct GatewayMetrics {
    /// Requests by response status, whether sent by the gateway or by a service.
    pub requests: Family<StatusLabels, Counter>,
    /// Failed TLS handshakes, which led to no request.
    pub failed_handshakes: Counter,
    /// Requests by sandbox.
    pub by_sandbox: SandboxRequests,
}

impl GatewayMetrics {
    /// Counts and logs a request that never arrived completely. Only its client is known.
    pub fn record_unparsed_request(&self, client: IpAddr, status: StatusCode) {
        self.count_status(status.as_u16());
        let client = client.to_canonical();
        tracing::info!(target: ACCESS_TARGET, %client, status = status.as_u16(), "request");
    }

    /// Counts and logs a failed TLS handshake.
    pub fn record_failed_handshake(&self, client: IpAddr, error: &io::Error) {
        self.failed_handshakes.inc();
        let (client, error) = (client.to_canonical(), error.to_string());
        tracing::info!(target: ACCESS_TARGET, %client, ?error, "TLS handshake failed");
    }

    /// Counts a request by the status of its response.
    pub(super) fn count_status(&self, code: u16) {
        self.requests.get_or_create(&StatusLabels { code }).inc();
    }
}
