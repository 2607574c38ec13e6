//! TCP sockets of the proxy: shared between the task that serves a connection and whoever may have
//! to end it.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsRawFd as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// A connected socket.
pub type SharedSocket = Arc<TcpStream>;

/// Connections that come out of the listener inherit what is set here. The times between probes
/// are the system's, hours: a sandbox that is paused for a while keeps its connections.
pub fn configure_listener(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let socket = SockRef::from(listener);
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)
}

/// Connects, with what [`configure_listener`] sets for the other side.
pub async fn connect_tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    let socket = SockRef::from(&stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    Ok(stream)
}

/// Ends a connection at once and tells its peer with a RST. Whoever waits for the socket sees an
/// error.
pub fn reset_connection(socket: &TcpStream) {
    let unspecified =
        libc::sockaddr { sa_family: libc::AF_UNSPEC.cast_unsigned() as u16, sa_data: [0; 14] };
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: `nowhere` is a whole sockaddr, of the length that is told, and the socket is open.
    // connect(2) with AF_UNSPEC dissolves the association of a socket (Linux: tcp_disconnect), which
    // other than close(2) does not wait until everybody has dropped the socket.
    let _ = unsafe { libc::connect(socket.as_raw_fd(), &raw const unspecified, length) };
}

/// Waits until the connection is broken: reset_connection by its peer, or by [`reset_connection`].
pub async fn wait_for_reset(socket: &TcpStream) {
    // An error means that the runtime ends.
    let _ = socket.ready(Interest::ERROR).await;
}

/// The error of a connection that is [`wait_for_reset`].
pub fn reset_error() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// Writes all of it.
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

/// Reads what a peer still sends, and forgets it, until the peer ends its side: closing a socket with
/// unread bytes would reset the connection, and the peer might never read the last answer.
pub async fn drain_to_eof(socket: &TcpStream) -> io::Result<()> {
    let mut discarded = [0; 1024];
    loop {
        socket.readable().await?;
        match socket.try_read(&mut discarded) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A socket for libraries that want to own what they read and write.
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
            match self.0.try_read_buf(buffer) {
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
