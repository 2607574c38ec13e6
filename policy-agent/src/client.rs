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
pub enum Error {
    /// Nobody answers.
    #[error("{}", advice(.socket, .cause))]
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
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether what was asked for is wrong, rather than what was done with it.
    #[must_use]
    pub fn is_bad_input(&self) -> bool {
        let bad = [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE];
        matches!(self, Self::Refused { status, .. } if bad.contains(status))
    }
}

/// An error as the agent words it.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// Speaks with one agent.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the agent that listens there.
    #[must_use]
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// `GET`, for the whole answer.
    ///
    /// # Errors
    /// There is no good answer.
    pub async fn get(&self, path: &str) -> Result<Bytes, Error> {
        self.whole(Method::GET, path, Bytes::new()).await
    }

    /// Any method, for the whole answer.
    ///
    /// # Errors
    /// There is no good answer.
    pub async fn whole(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
        let answer = self.send(method, path, body).await?;
        Ok(answer.into_body().collect().await.map_err(broken)?.to_bytes())
    }

    /// `GET`, for an answer that comes piece by piece.
    ///
    /// # Errors
    /// There is no good answer.
    pub async fn stream(&self, path: &str) -> Result<Pieces, Error> {
        Ok(Pieces(self.send(Method::GET, path, Bytes::new()).await?.into_body()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|cause| Error::Unreachable { socket: self.socket.clone(), cause })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "agent")
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        let answer = sender.send_request(request).await.map_err(broken)?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }
}

/// An answer's body as it comes.
pub struct Pieces(Incoming);

impl Pieces {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// The conversation broke off.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.0.frame().await {
            if let Ok(data) = frame.map_err(broken)?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

async fn refusal(answer: Response<Incoming>) -> Error {
    let status = answer.status();
    let body = match answer.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return broken(error),
    };
    let message = match serde_json::from_slice::<Refusal>(&body) {
        Ok(refusal) => refusal.message,
        Err(_) => format!("the agent answers {status}"),
    };
    Error::Refused { status, message }
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Broken(Box::new(error))
}

fn advice(socket: &Path, cause: &io::Error) -> String {
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
