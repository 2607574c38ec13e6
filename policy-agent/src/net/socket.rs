//! TCP sockets that are shared between the task that serves a connection and the code that may have
//! to reset it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BufMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A connected socket, shared.
pub type SharedSocket = Arc<TcpStream>;

/// Sets options that accepted connections inherit from the listener. The keepalive interval stays
/// at the system's default of hours, so that a paused sandbox keeps its connections.
pub fn configure_listener(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)
}

/// Connects, with the same socket options as [`configure_listener`].
pub async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    Ok(stream)
}

/// Resets a connection at once: the peer receives a RST, and pending operations on the socket fail.
pub fn reset_connection(socket: &TcpStream) {
    #[expect(clippy::cast_possible_truncation, reason = "the family is 0, the size 16")]
    let (unspecified, length) = (
        libc::sockaddr { sa_family: libc::AF_UNSPEC.cast_unsigned() as u16, sa_data: [0; 14] },
        size_of::<libc::sockaddr>() as libc::socklen_t,
    );
    // SAFETY: `unspecified` is a complete sockaddr of the given length, and the socket is open.
    // connect(2) with AF_UNSPEC dissolves the socket's association (Linux: tcp_disconnect). Unlike
    // close(2), it takes effect although others still hold the socket.
    let _ = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, length) };
}

/// Where a connection stands in closing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseProgress {
    /// The peer has not acknowledged everything yet.
    Unacknowledged,
    /// The peer has acknowledged everything and has not closed its side.
    PeerOpen,
    /// The kernel keeps nothing more than a `TIME_WAIT` entry: it has ended, or it was reset.
    Ended,
}

/// States of a connection as the kernel numbers them (include/net/tcp_states.h).
const TCP_FIN_WAIT2: u8 = 5;
const TCP_CLOSE: u8 = 7;

/// Where a connection stands that this side has shut down.
pub fn close_progress(socket: &TcpStream) -> CloseProgress {
    // The first byte of `struct tcp_info` is the state.
    let (mut state, mut length): (u8, libc::socklen_t) = (TCP_CLOSE, 1);
    // SAFETY: the kernel writes at most `length` bytes, for which `state` has room, and the socket
    // is open. If it writes nothing, the connection counts as ended.
    let _ = unsafe {
        let value = (&raw mut state).cast();
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            value,
            &raw mut length,
        )
    };
    match state {
        TCP_CLOSE => CloseProgress::Ended,
        TCP_FIN_WAIT2 => CloseProgress::PeerOpen,
        _ => CloseProgress::Unacknowledged,
    }
}

/// Waits until the connection is reset, by its peer or by [`reset_connection`].
pub async fn wait_for_reset(socket: &TcpStream) {
    // `ready` only fails when the runtime shuts down.
    let _ = socket.ready(Interest::ERROR).await;
}

/// The error of a connection for which [`wait_for_reset`] has returned.
pub fn reset_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Writes all bytes.
pub async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.writable().await?;
        match socket.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what is available into the free part of a buffer. Unlike [`TcpStream::try_read_buf`], it
/// takes a short read as a sign that nothing is left, so the next read waits instead of failing.
pub fn try_read_buf(socket: &TcpStream, buffer: &mut impl BufMut) -> io::Result<usize> {
    // SAFETY: recv(2) never leaves initialised bytes uninitialised.
    let free = unsafe { buffer.chunk_mut().as_uninit_slice_mut() };
    let mut short_read = None;
    let read = socket.try_io(Interest::READABLE, || {
        let count = SockRef::from(socket).recv(free)?;
        if count == 0 || count == free.len() {
            return Ok(count);
        }
        short_read = Some(count);
        Err(io::ErrorKind::WouldBlock.into()) // tells tokio to wait for the next event
    });
    let count = short_read.map_or(read, Ok)?;
    // SAFETY: recv(2) has initialised that many bytes.
    unsafe { buffer.advance_mut(count) };
    Ok(count)
}

/// Reads and discards what a peer still sends, until the peer closes its side. Closing a socket
/// with unread bytes resets the connection, and the peer might never read the last response.
pub async fn drain_to_eof(socket: &TcpStream) -> io::Result<()> {
    let mut discarded = [0; 1024];
    loop {
        socket.readable().await?;
        match try_read_buf(socket, &mut &mut discarded[..]) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A shared socket as an owned stream, for libraries that take ownership of their I/O.
#[derive(Clone, Debug)]
pub struct SharedTcpStream(pub SharedSocket);

impl AsyncRead for SharedTcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match try_read_buf(&self.0, buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read.map(|_| ())),
            }
        }
    }
}

impl SharedTcpStream {
    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

impl AsyncWrite for SharedTcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |socket| socket.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_with(cx, |socket| socket.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(SockRef::from(&*self.0).shutdown(std::net::Shutdown::Write))
    }
}
