//! The command line's side of the API: HTTP over the agent's Unix socket.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::UnixStream;

/// Why there is no good answer.
#[derive(Debug, Error)]
pub enum ApiClientError {
    /// Nobody answers.
    #[error("{}", unreachable_message(.socket, .cause))]
    Unreachable {
        /// Where it was tried.
        socket: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// The agent says no.
    #[error("{message}")]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// The conversation broke off.
    #[error("the agent broke off: see its log")]
    BrokenConnection(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ApiClientError {
    /// Whether what was asked for is wrong, rather than what was done with it.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        let bad = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE];
        matches!(self, Self::Refused { status, .. } if bad.contains(status))
    }
}

/// An error as the agent words it.
#[derive(Deserialize)]
struct ApiErrorBody {
    message: String,
}

/// Speaks with one agent.
#[derive(Clone, Debug)]
pub struct ApiClient {
    socket: PathBuf,
}

impl ApiClient {
    /// A client of the agent that listens there.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// `GET`, for the whole answer.
    ///
    /// # Errors
    /// There is no good answer.
    pub async fn get(&self, path: &str) -> Result<Bytes, ApiClientError> {
        self.request(Method::GET, path, Bytes::new()).await
    }

    /// Any method, for the whole answer.
    ///
    /// # Errors
    /// There is no good answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, ApiClientError> {
        let response = self.send(method, path, body).await?;
        Ok(response.into_body().collect().await.map_err(broken_error)?.to_bytes())
    }

    /// `GET`, for an answer that comes piece by piece.
    ///
    /// # Errors
    /// There is no good answer.
    pub async fn stream(&self, path: &str) -> Result<BodyChunks, ApiClientError> {
        Ok(BodyChunks(self.send(Method::GET, path, Bytes::new()).await?.into_body()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ApiClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|cause| ApiClientError::Unreachable { socket: self.socket.clone(), cause })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken_error)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(broken_error)?;
        let response = sender.send_request(request).await.map_err(broken_error)?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refused_error(response).await)
        }
    }
}

/// An answer's body as it comes.
pub struct BodyChunks(Incoming);

impl BodyChunks {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The conversation broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiClientError> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.map_err(broken_error)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
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
