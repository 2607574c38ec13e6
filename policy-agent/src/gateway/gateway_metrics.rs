//! What the gateway counts, and its access log.

use std::{io, net::IpAddr, time::Instant};

use hyper::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::target::SandboxTarget;
use crate::logging::ACCESS_TARGET;

/// Labels of a count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StatusLabels {
    code: u16,
}

/// The gateway's metrics. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct GatewayMetrics {
    /// Requests by the status of their answer, the gateway's own and the services'.
    pub requests: Family<StatusLabels, Counter>,
    /// TLS handshakes that failed, which no request came of.
    pub failed_handshakes: Counter,
}

impl GatewayMetrics {
    /// Counts and logs a request that was never whole, so that nothing is known of it but who sent it.
    pub fn record_unparsed_request(&self, client: IpAddr, status: StatusCode) {
        self.count_status(status);
        let client = client.to_canonical();
        tracing::info!(target: "access", %client, status = status.as_u16(), "request");
    }

    /// Counts and logs a TLS handshake that failed.
    pub fn record_failed_handshake(&self, client: IpAddr, error: &io::Error) {
        self.failed_handshakes.inc();
        let (client, error) = (client.to_canonical(), error.to_string());
        tracing::info!(target: "access", %client, ?error, "TLS handshake failed");
    }

    fn count_status(&self, status: StatusCode) {
        self.requests.get_or_create(&StatusLabels { code: status.as_u16() }).inc();
    }
}

/// Bytes of a path that are logged.
const MAX_LOGGED_PATH: usize = 256;

/// The status of requests whose clients did not wait for the answer, as nginx counts them.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// A request, as far as the log may know it: no query, no fields. It is counted and logged once, at its
/// answer, or when it is dropped without one because its client has left.
pub struct AccessLogEntry {
    metrics: GatewayMetrics,
    client: IpAddr,
    method: Method,
    path: String,
    target: Option<SandboxTarget>,
    started_at: Instant,
    is_finished: bool,
}

impl AccessLogEntry {
    /// What the log will tell of a request.
    pub fn for_request<B>(
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
            is_finished: false,
        }
    }

    /// Whom it is for.
    pub fn set_target(&mut self, target: &SandboxTarget) {
        self.target = Some(target.clone());
    }

    /// It has its answer.
    pub fn finish(mut self, status: StatusCode) {
        self.is_finished = true;
        self.metrics.count_status(status);
        self.write_log(status.as_u16());
    }

    /// One line, since tracing escapes what is written with `?`.
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
        if !self.is_finished {
            self.metrics
                .requests
                .get_or_create(&StatusLabels { code: CLIENT_CLOSED_REQUEST })
                .inc();
            self.write_log(CLIENT_CLOSED_REQUEST);
        }
    }
}
