//! The command line's API client: HTTP over the agent's Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
};
use serde::Deserialize;
use thiserror::Error;

use crate::net::unix_http::{ResponseLines, UnixHttpError, send_to_socket};

/// Why a request failed.
#[derive(Debug, Error)]
pub(super) enum ApiClientError {
    /// The agent is unreachable.
    #[error("{}", unreachable_message(.socket, .cause))]
    Unreachable {
        /// The path of the socket.
        socket: PathBuf,
        /// Why connecting failed.
        #[source]
        cause: io::Error,
    },
    /// The agent replied with an error.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The message of the agent.
        message: String,
    },
    /// The connection failed before the response was complete.
    #[error("the agent broke off: see its log")]
    BrokenConnection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiClientError {
    /// Returns whether the request is invalid, as opposed to a failure of the agent.
    #[must_use]
    pub(super) fn is_bad_input(&self) -> bool {
        let bad = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE];
        matches!(self, Self::Refused { status, .. } if bad.contains(status))
    }
}

/// The body of an error response.
#[derive(Deserialize)]
struct ApiErrorBody {
    message: String,
}

/// A client of one agent.
#[derive(Clone, Debug)]
pub(super) struct ApiClient {
    socket: PathBuf,
}

impl ApiClient {
    /// Creates a client of the agent that listens on `socket`.
    #[must_use]
    pub(super) fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// Sends a `GET` request and returns the whole response body.
    ///
    /// # Errors
    /// The request failed.
    pub(super) async fn get(&self, path: &str) -> Result<Bytes, ApiClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// Sends a request and returns the whole response body.
    ///
    /// # Errors
    /// The request failed.
    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ApiClientError> {
        let response = self.send(method, path, body).await?;
        Ok(response.into_body().collect().await.map_err(broken_error)?.to_bytes())
    }

    /// Sends a `GET` request and returns the lines of the response as they arrive.
    ///
    /// # Errors
    /// The request failed.
    pub(super) async fn stream_lines(&self, path: &str) -> Result<ApiLines, ApiClientError> {
        let body = self.send(Method::GET, path, Bytes::new()).await?.into_body();
        Ok(ApiLines(ResponseLines::new(body, usize::MAX)))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiClientError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(broken_error)?;
        let sent = send_to_socket(&self.socket, request).await;
        let response = sent.map_err(|error| match error {
            UnixHttpError::Connect(cause) => {
                ApiClientError::Unreachable { socket: self.socket.clone(), cause }
            }
            broken => broken_error(broken),
        })?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refused_error(response).await)
        }
    }
}

/// The lines of a response.
pub(super) struct ApiLines(ResponseLines);

impl ApiLines {
    /// Waits for more lines, and returns those that are complete. `None` at the end.
    ///
    /// # Errors
    /// The connection failed.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<u8>>, ApiClientError> {
        self.0.next().await.map_err(broken_error)
    }
}

async fn refused_error(response: Response<Incoming>) -> ApiClientError {
    let status = response.status();
    let body = match response.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return broken_error(error),
    };
    let message = match serde_json::from_slice::<ApiErrorBody>(&body) {
        Ok(error_body) => error_body.message,
        Err(_) => format!("the agent answers {status}"),
    };
    ApiClientError::Refused { status, message }
}

fn broken_error(error: impl std::error::Error + Send + Sync + 'static) -> ApiClientError {
    ApiClientError::BrokenConnection(Box::new(error))
}

fn unreachable_message(socket: &Path, cause: &io::Error) -> String {
    let socket = socket.display();
    match cause.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("may not open {socket}: be root, or in the group that the socket belongs to")
        }
        _ => format!(
            "no agent answers on {socket}: start one with `policy-agent run`, or say with \
             --socket where it listens"
        ),
    }
}
