//! Connections to upstreams.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::socket::{SharedSocket, SharedTcpStream};

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
