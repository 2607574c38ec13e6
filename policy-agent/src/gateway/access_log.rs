//! The access log: one line for each request, once it has ended.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use hyper::{Method, Request, StatusCode, Uri};

use super::{backend::BackendError, gateway_metrics::GatewayMetrics, target::SandboxTarget};
use crate::{logging::ACCESS_TARGET, policy::SandboxId};

/// Maximum number of logged characters of a path.
const MAX_LOGGED_PATH: usize = 256;

/// The status of requests whose client disconnected before the response, as in nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Bytes that pass in one direction. Clones share the count.
#[derive(Clone, Debug, Default)]
pub(super) struct ByteCount(Arc<AtomicU64>);

impl ByteCount {
    /// Adds bytes.
    pub(super) fn add(&self, bytes: usize) {
        self.0.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The number of bytes.
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a request ended, for operators who look for the side that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestOutcome {
    /// The gateway answered itself.
    NotForwarded,
    /// The service gave no valid answer.
    NoAnswer(&'static str),
    /// The service's answer has passed through, or the upgraded connection has ended.
    Complete,
    /// The service ended its answer too early.
    ServiceBrokeOff,
    /// The client disconnected.
    ClientLeft,
}

impl RequestOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::NotForwarded => "not-forwarded",
            Self::NoAnswer(reason) => reason,
            Self::Complete => "complete",
            Self::ServiceBrokeOff => "service-broke-off",
            Self::ClientLeft => "client-left",
        }
    }
}

impl From<&BackendError> for RequestOutcome {
    fn from(error: &BackendError) -> Self {
        Self::NoAnswer(match error {
            BackendError::PortClosed => "port-closed",
            BackendError::TooManyConnections => return Self::NotForwarded,
            BackendError::Unreachable(_) => "unreachable",
            BackendError::Tls(_) => "no-tls",
            BackendError::InvalidResponse => "invalid-answer",
            BackendError::InvalidRequestBody => "invalid-body",
            BackendError::NotHttp2 | BackendError::InvalidHost => "no-http2",
        })
    }
}

/// The log entry of a request, without its query and header fields. The request is counted with
/// the head of its response, and logged when the entry is dropped. An entry that was taken does
/// nothing.
#[derive(Debug, Default)]
pub(super) struct AccessLogEntry(Option<Box<RequestLog>>);

#[derive(Debug)]
struct RequestLog {
    metrics: GatewayMetrics,
    client: IpAddr,
    method: Method,
    uri: Uri,
    target: Option<(SandboxId, u16)>,
    started_at: Instant,
    /// The response's status, and the time until its head. `None` until it is known.
    head: Option<(StatusCode, Duration)>,
    received: Option<ByteCount>,
    sent: u64,
    outcome: Option<RequestOutcome>,
}

impl AccessLogEntry {
    /// Creates the entry of a request.
    pub(super) fn for_request<B>(
        request: &Request<B>,
        client: IpAddr,
        metrics: &GatewayMetrics,
    ) -> Self {
        Self(Some(Box::new(RequestLog {
            metrics: metrics.clone(),
            client: client.to_canonical(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            target: None,
            started_at: Instant::now(),
            head: None,
            received: None,
            sent: 0,
            outcome: None,
        })))
    }

    /// Passes the entry on to whoever notices the end of the request.
    pub(super) fn take(&mut self) -> Self {
        Self(self.0.take())
    }

    /// Sets the sandbox and port.
    pub(super) fn set_target(&mut self, target: &SandboxTarget) {
        if let Some(log) = &mut self.0 {
            log.target = Some((target.sandbox.clone(), target.port));
        }
    }

    /// Sets and counts the status of the response.
    pub(super) fn set_status(&mut self, status: StatusCode) {
        if let Some(log) = &mut self.0 {
            log.count_status(status.as_u16());
            log.head = Some((status, log.started_at.elapsed()));
        }
    }

    /// Sets how the request has ended, unless that is known. Without it, the client has left.
    pub(super) fn set_outcome(&mut self, outcome: RequestOutcome) {
        if let Some(log) = &mut self.0 {
            log.outcome.get_or_insert(outcome);
        }
    }

    /// The count of bytes that the client sends after the head.
    pub(super) fn received(&mut self) -> ByteCount {
        let received = self.0.as_mut().map(|log| log.received.get_or_insert_default().clone());
        received.unwrap_or_default()
    }

    /// Adds bytes that are sent to the client after the head.
    pub(super) fn add_sent(&mut self, bytes: u64) {
        if let Some(log) = &mut self.0 {
            log.sent = log.sent.saturating_add(bytes);
        }
    }
}

impl RequestLog {
    fn count_status(&self, status: u16) {
        self.metrics.count_status(status);
        if let Some((sandbox, _)) = &self.target {
            self.metrics.by_sandbox.count(sandbox.as_str(), status);
        }
    }
}

impl Drop for RequestLog {
    /// Writes a single line. `?` makes tracing escape client-controlled values.
    fn drop(&mut self) {
        if self.head.is_none() {
            self.count_status(CLIENT_CLOSED_REQUEST);
        }
        let target = self.target.as_ref();
        let path: String = self.uri.path().chars().take(MAX_LOGGED_PATH).collect();
        tracing::info!(
            target: ACCESS_TARGET,
            client = %self.client,
            sandbox = target.map(|(sandbox, _)| sandbox.as_str()),
            port = target.map(|(_, port)| port),
            method = ?self.method,
            ?path,
            status = self.head.map_or(CLIENT_CLOSED_REQUEST, |(status, _)| status.as_u16()),
            received = self.received.as_ref().map_or(0, ByteCount::get),
            sent = self.sent,
            head_ms = self.head.map(|(_, elapsed)| elapsed.as_millis()),
            ms = self.started_at.elapsed().as_millis(),
            outcome = self.outcome.unwrap_or(RequestOutcome::ClientLeft).as_str(),
            "request"
        );
    }
}
