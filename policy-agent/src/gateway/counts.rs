//! What the gateway counts, and its access log.

use std::{io, net::IpAddr, time::Instant};

use hyper::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::target::Target;
use crate::logging::ACCESS;

/// Labels of a count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Code {
    code: u16,
}

/// The gateway's metrics. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Requests by the status of their answer, the gateway's own and the services'.
    pub requests: Family<Code, Counter>,
    /// TLS handshakes that failed, which no request came of.
    pub handshakes: Counter,
}

impl Counts {
    /// Counts and logs a request that was never whole, so that nothing is known of it but who sent it.
    pub fn unheard(&self, client: IpAddr, status: StatusCode) {
        self.count(status);
        let client = client.to_canonical();
        tracing::info!(target: "access", %client, status = status.as_u16(), "request");
    }

    /// Counts and logs a TLS handshake that failed.
    pub fn failed_handshake(&self, client: IpAddr, error: &io::Error) {
        self.handshakes.inc();
        let (client, error) = (client.to_canonical(), error.to_string());
        tracing::info!(target: "access", %client, ?error, "TLS handshake failed");
    }

    fn count(&self, status: StatusCode) {
        self.requests.get_or_create(&Code { code: status.as_u16() }).inc();
    }
}

/// Bytes of a path that are logged.
const LONGEST_PATH: usize = 256;

/// The status of requests whose clients did not wait for the answer, as nginx counts them.
const CLIENT_LEFT: u16 = 499;

/// A request, as far as the log may know it: no query, no fields. It is counted and logged once, at its
/// answer, or when it is dropped without one because its client has left.
pub struct Visit {
    counts: Counts,
    client: IpAddr,
    method: Method,
    path: String,
    target: Option<Target>,
    begin: Instant,
    is_answered: bool,
}

impl Visit {
    /// What the log will tell of a request.
    pub fn of<B>(request: &hyper::Request<B>, client: IpAddr, counts: &Counts) -> Self {
        Self {
            counts: counts.clone(),
            client: client.to_canonical(),
            method: request.method().clone(),
            path: request.uri().path().chars().take(LONGEST_PATH).collect(),
            target: None,
            begin: Instant::now(),
            is_answered: false,
        }
    }

    /// Whom it is for.
    pub fn is_for(&mut self, target: &Target) {
        self.target = Some(target.clone());
    }

    /// It has its answer.
    pub fn answered(mut self, status: StatusCode) {
        self.is_answered = true;
        self.counts.count(status);
        self.log(status.as_u16());
    }

    /// One line, since tracing escapes what is written with `?`.
    fn log(&self, status: u16) {
        let target = self.target.as_ref();
        tracing::info!(
            target: ACCESS,
            client = %self.client,
            sandbox = target.map(|target| target.sandbox.as_str()),
            port = target.map(|target| target.port),
            method = ?self.method,
            path = ?self.path,
            status,
            ms = self.begin.elapsed().as_millis(),
            "request"
        );
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.is_answered {
            self.counts.requests.get_or_create(&Code { code: CLIENT_LEFT }).inc();
            self.log(CLIENT_LEFT);
        }
    }
}
