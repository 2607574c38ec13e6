//! `POST /init` of envd: one request in a connection of its own, to nothing but the sandbox.

use std::time::Duration;

use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    net::{sandbox_dialer::SandboxDialer, upstream::lenient_http1_client},
    policy::SandboxSpec,
};

/// Maximum number of header fields in the response.
const MAX_RESPONSE_HEADERS: usize = 64;

/// Why envd does not have the authority.
pub(super) enum InitError {
    /// It has said so.
    Refused(StatusCode),
    /// It cannot be reached, or is not ready yet.
    Unreachable(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for InitError {
    fn from(error: E) -> Self {
        Self::Unreachable(error.into())
    }
}

/// Sends an authority (PEM) to the daemon on a port of a sandbox. The body of the response is not read.
///
/// # Errors
/// The daemon does not accept it.
pub(super) async fn send_authority(
    spec: &SandboxSpec,
    port: u16,
    authority: &str,
) -> Result<(), InitError> {
    let stream = SandboxDialer::new(spec).connect(port, Duration::ZERO).await?;
    let client = lenient_http1_client(MAX_RESPONSE_HEADERS);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await?;
    // Dropped, and thereby closed, with the response.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let body = json!({ "caBundle": authority }).to_string();
    let request: Request<Full<Bytes>> = Request::post("/init")
        .header(HOST, format!("localhost:{port}"))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(Bytes::from(body)))?;
    match sender.send_request(request).await?.status() {
        status if status.is_success() => Ok(()),
        status if status.is_server_error() => {
            Err(InitError::Unreachable(anyhow::anyhow!("POST /init: answered with {status}")))
        }
        status => Err(InitError::Refused(status)),
    }
}
