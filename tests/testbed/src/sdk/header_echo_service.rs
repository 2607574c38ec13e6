//! A web server in a sandbox that echoes request headers and counts requests.

use std::{
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, Result};
use axum::{
    Json, Router,
    extract::{Request, State},
    http::{HeaderName, HeaderValue},
};
use serde_json::{Map, Value, json};
use tokio::runtime::{Builder, Runtime};

use crate::network::NetworkNamespace;

/// The server. It ends on drop.
pub struct HeaderEchoService {
    requests: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl HeaderEchoService {
    /// Starts the server on a port of all IPv4 addresses.
    ///
    /// # Errors
    /// The port is in use.
    pub fn start(inside: &NetworkNamespace, port: u16) -> Result<Self> {
        let _inside = inside.enter()?;
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .with_context(|| format!("TCP port {port}"))?;
        listener.set_nonblocking(true)?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let requests = Arc::new(AtomicUsize::new(0));
        let pages = Router::new().fallback(echo_request).with_state(Arc::clone(&requests));
        let entered = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        drop(entered);
        runtime.spawn(async move { axum::serve(listener, pages).await });
        Ok(Self { requests, _runtime: runtime })
    }

    /// The number of requests so far.
    pub fn request_count(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn echo_request(State(requests): State<Arc<AtomicUsize>>, request: Request) -> Json<Value> {
    requests.fetch_add(1, Ordering::Relaxed);
    let headers: Map<String, Value> = request.headers().iter().map(header_entry).collect();
    Json(json!({ "target": request.uri().to_string(), "headers": headers }))
}

fn header_entry((name, value): (&HeaderName, &HeaderValue)) -> (String, Value) {
    (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into())
}
