//! What the gateway counts, and its access log.

use std::net::IpAddr;

use hyper::{Method, StatusCode};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::target::Target;

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
}

/// Bytes of a path that are logged.
const LONGEST_PATH: usize = 256;

/// A request, as far as the log may know it: no query, no fields.
pub struct Visit {
    /// Who asked.
    pub client: IpAddr,
    /// How.
    pub method: Method,
    /// For what, without the query.
    pub path: String,
    /// When.
    pub begin: std::time::Instant,
}

impl Visit {
    /// What the log will tell of a request.
    pub fn of<B>(request: &hyper::Request<B>, client: IpAddr) -> Self {
        let path: String = request.uri().path().chars().take(LONGEST_PATH).collect();
        let method = request.method().clone();
        Self { client: client.to_canonical(), method, path, begin: std::time::Instant::now() }
    }

    /// Counts and logs a request that has its answer. One line, since tracing escapes what is
    /// written with `?`.
    pub fn answered(&self, counts: &Counts, target: Option<&Target>, status: StatusCode) {
        counts.requests.get_or_create(&Code { code: status.as_u16() }).inc();
        tracing::info!(
            target: "access",
            client = %self.client,
            sandbox = target.map(|target| target.sandbox.as_str()),
            port = target.map(|target| target.port),
            method = ?self.method,
            path = ?self.path,
            status = status.as_u16(),
            ms = self.begin.elapsed().as_millis(),
            "request"
        );
    }
}
