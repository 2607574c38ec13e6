//! A request by HTTP over a Unix socket, for the agent's own API and those of container engines, and
//! responses that are read line by line.

use std::{io, mem, path::Path};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;

/// Why there is no response.
#[derive(Debug, Error)]
pub(crate) enum UnixHttpError {
    /// Nothing listens on the socket, or it may not be opened.
    #[error("{0}")]
    Connect(#[source] io::Error),
    /// The connection failed before the end of the response.
    #[error("the connection ended")]
    Connection(#[source] hyper::Error),
    /// A line is longer than the limit.
    #[error("a line has no end")]
    LongLine,
}

/// Sends a request on a connection of its own. The body of the response arrives as it is read.
///
/// # Errors
/// There is no response.
pub(crate) async fn send_to_socket(
    socket: &Path,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, UnixHttpError> {
    let stream = UnixStream::connect(socket).await.map_err(UnixHttpError::Connect)?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(UnixHttpError::Connection)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(UnixHttpError::Connection)
}

/// The lines of a response body.
pub(crate) struct ResponseLines {
    body: Incoming,
    /// The start of a line whose end has not arrived.
    incomplete: Vec<u8>,
    max_line_bytes: usize,
}

impl ResponseLines {
    /// The lines of `body`, each at most about this long.
    pub(crate) const fn new(body: Incoming, max_line_bytes: usize) -> Self {
        Self { body, incomplete: Vec::new(), max_line_bytes }
    }

    /// Waits for more lines, and returns those that are complete, with their ends. `None` at the end
    /// of the body.
    ///
    /// # Errors
    /// The connection failed, or a line is too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, UnixHttpError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(UnixHttpError::Connection)?;
            let Ok(data) = frame.into_data() else { continue };
            self.incomplete.extend_from_slice(&data);
            if let Some(end) = self.incomplete.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.incomplete.split_off(end + 1);
                return Ok(Some(mem::replace(&mut self.incomplete, rest)));
            }
            if self.incomplete.len() > self.max_line_bytes {
                return Err(UnixHttpError::LongLine);
            }
        }
        Ok(None)
    }
}

/// The lines of a text that are not empty, without their ends.
pub(crate) fn split_lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}
