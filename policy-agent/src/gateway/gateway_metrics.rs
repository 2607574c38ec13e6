//! The gateway's metrics and access log.

use std::{io, net::IpAddr, time::Instant};

use hyper::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::target::SandboxTarget;
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

    fn count_status(&self, code: u16) {
        self.requests.get_or_create(&StatusLabels { code }).inc();
    }
}

/// Maximum number of logged characters of a path.
const MAX_LOGGED_PATH: usize = 256;

/// The status of requests whose client disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The log entry of a request, without its query and header fields. It is counted and logged once:
/// with its response, or when it is dropped because the client has disconnected.
pub(super) struct AccessLogEntry {
    metrics: GatewayMetrics,
    client: IpAddr,
    method: Method,
    path: String,
    target: Option<SandboxTarget>,
    started_at: Instant,
    /// The response's status. `None` until it is known.
    status: Option<StatusCode>,
}

impl AccessLogEntry {
    /// Creates the entry of a request.
    pub(super) fn for_request<B>(
        request: &hyper::Request<B>,
        client: IpAddr,
        metrics: &GatewayMetrics,
    ) -> Self {
        Self {
            metrics: metrics.clone(),
            client: client.to_canonical(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(MAX_LOGGED_PATH).collect(),
            target: None,
            started_at: Instant::now(),
            status: None,
        }
    }

    /// Sets the sandbox and port.
    pub(super) fn set_target(&mut self, target: &SandboxTarget) {
        self.target = Some(target.clone());
    }

    /// Counts and logs the request with its response status.
    pub(super) fn finish(mut self, status: StatusCode) {
        self.status = Some(status);
    }

    /// Writes a single line. `?` makes tracing escape client-controlled values.
    fn write_log(&self, status: u16) {
        let target = self.target.as_ref();
        tracing::info!(
            target: ACCESS_TARGET,
            client = %self.client,
            sandbox = target.map(|target| target.sandbox.as_str()),
            port = target.map(|target| target.port),
            method = ?self.method,
            path = ?self.path,
            status,
            ms = self.started_at.elapsed().as_millis(),
            "request"
        );
    }
}

impl Drop for AccessLogEntry {
    fn drop(&mut self) {
        let status = self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        self.metrics.count_status(status);
        self.write_log(status);
    }
}
