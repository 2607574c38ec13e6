//! Connections to upstreams.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioExecutor;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::socket::{SharedSocket, SharedTcpStream};

/// Maximum size of the head of an HTTP/1 message in bytes.
pub const MAX_HEAD_SIZE: usize = 64 * 1024;

/// Bytes of a request over HTTP/2 that are buffered for an upstream that does not read.
const MAX_STREAM_SEND_BUFFER: usize = 16 * 1024;

/// An HTTP/1 client that accepts the same malformed responses as other proxies.
pub fn lenient_http1_client(max_headers: usize) -> http1::Builder {
    let mut client = http1::Builder::new();
    client
        .max_buf_size(MAX_HEAD_SIZE)
        .max_headers(max_headers)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .ignore_invalid_headers_in_responses(true);
    client
}

/// An HTTP/2 client with these flow control windows, in bytes.
pub fn http2_client(stream_window: u32, connection_window: u32) -> http2::Builder<TokioExecutor> {
    let mut client = http2::Builder::new(TokioExecutor::new());
    client
        .initial_stream_window_size(stream_window)
        .initial_connection_window_size(connection_window)
        .max_header_list_size(u32::try_from(MAX_HEAD_SIZE).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_STREAM_SEND_BUFFER);
    client
}

/// A connection to the upstream.
pub struct UpstreamConnection {
    /// The TCP socket.
    pub socket: SharedSocket,
    /// The stream to read from and write to.
    pub io: UpstreamIo,
}

/// The stream of an upstream connection.
pub enum UpstreamIo {
    /// Plain TCP.
    Plain(SharedTcpStream),
    /// Inside a TLS connection to a SOCKS5 proxy.
    Tls(Box<TlsStream<SharedTcpStream>>),
}

impl UpstreamConnection {
    /// Wraps a plain TCP connection.
    pub fn plain(stream: TcpStream) -> Self {
        let socket = Arc::new(stream);
        Self { io: UpstreamIo::Plain(SharedTcpStream(Arc::clone(&socket))), socket }
    }
}

macro_rules! delegate_io {
    ($io:expr, $method:ident, $($argument:expr),*) => {
        match $io.get_mut() {
            UpstreamIo::Plain(stream) => Pin::new(stream).$method($($argument),*),
            UpstreamIo::Tls(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate_io!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate_io!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate_io!(self, poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate_io!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate_io!(self, poll_shutdown, cx)
    }
}
