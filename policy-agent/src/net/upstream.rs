//! The far side of a connection.

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

use super::socket::{Socket, Stream};

/// A connection to where the sandbox's goes on.
pub struct Upstream {
    /// Its socket.
    pub socket: Socket,
    /// How it is read and written.
    pub carrier: Carrier,
}

/// How a connection is read and written.
pub enum Carrier {
    /// As it is.
    Plain(Stream),
    /// Inside the TLS connection to a SOCKS5 proxy.
    Encrypted(Box<TlsStream<Stream>>),
}

impl Upstream {
    /// One that is read and written as it is.
    pub fn plain(stream: TcpStream) -> Self {
        let socket = Arc::new(stream);
        Self { carrier: Carrier::Plain(Stream(Arc::clone(&socket))), socket }
    }
}

macro_rules! delegate {
    ($carrier:expr, $method:ident, $($argument:expr),*) => {
        match $carrier.get_mut() {
            Carrier::Plain(stream) => Pin::new(stream).$method($($argument),*),
            Carrier::Encrypted(stream) => Pin::new(stream).$method($($argument),*),
        }
    };
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        delegate!(self, poll_read, cx, buffer)
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Encrypted(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown, cx)
    }
}
