//! A request by HTTP over a Unix socket, for the agent's own API and those of container engines.

use std::{io, path::Path};

use http_body_util::Full;
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
    /// The connection failed before the response began.
    #[error("the connection ended")]
    Connection(#[source] hyper::Error),
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
