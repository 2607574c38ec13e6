//! Accepting connections, and finding out what they speak.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use hyper::StatusCode;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Gateway, connection,
    flow::{UNSENT, UNSENT_IN_TLS},
    proxy_protocol,
    trusted_proxies::Peer,
};

/// How a client reached the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// As it is.
    Http,
    /// Inside TLS.
    Https,
}

impl Scheme {
    /// As URLs write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// How long a client may take to say what it speaks, TLS included.
const GREET_WITHIN: Duration = Duration::from_secs(10);
/// How long is waited when no connection can be accepted for want of descriptors.
const REST: Duration = Duration::from_millis(100);
/// What clients of HTTP/2 begin with (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a listener for ever.
pub async fn serve(gateway: Arc<Gateway>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let Ok(place) = Arc::clone(&gateway.places).acquire_owned().await else { return };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_the_clients(&error) {
                    tracing::warn!("the gateway cannot accept connections: {error}");
                    sleep(REST).await;
                }
                continue;
            }
        };
        let (gateway, tls) = (Arc::clone(&gateway), tls.clone());
        tokio::spawn(async move {
            let _place = place;
            // What goes wrong here is the client's doing, and its connection ends.
            let _ = greet(gateway, stream, client, tls).await;
        });
    }
}

/// As many connections as may be served at a time.
pub fn places(descriptors: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(descriptors.clamp(16, Semaphore::MAX_PERMITS)))
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Finds out whose connection it is and what it speaks, and serves it. An error ends the connection; it
/// was the client's doing, and is counted where there is more to it than nothing.
async fn greet(
    gateway: Arc<Gateway>,
    mut stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_keepalive(true)?;
    socket.set_tcp_notsent_lowat(UNSENT)?;
    let mut peer = Peer { address: client.ip().to_canonical(), scheme: Scheme::Http };
    if gateway.proxy_protocol && gateway.proxies.hold(peer.address) {
        let proxied = within(proxy_protocol::read(&mut stream)).await;
        let unheard = |error: &_| gateway.counts.unheard(peer.address, status(error));
        let Some(proxied) = proxied.inspect_err(unheard)? else { return Ok(()) };
        peer.address = proxied.client.unwrap_or(peer.address);
        peer.scheme = if proxied.tls { Scheme::Https } else { Scheme::Http };
    }
    let Some(tls) = tls else { return begin(gateway, stream, peer, false).await };
    let failed = |error: &io::Error| gateway.counts.failed_handshake(peer.address, error);
    // Who comes and says nothing, as health checks do, has not failed.
    if within(stream.peek(&mut [0])).await.inspect_err(failed)? == 0 {
        return Ok(());
    }
    let mut stream = within(tls.accept(stream)).await.inspect_err(failed)?;
    stream.get_mut().1.set_buffer_limit(Some(UNSENT_IN_TLS));
    peer.scheme = Scheme::Https;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    begin(gateway, stream, peer, is_http2).await
}

fn status(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn within<T>(greeting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(GREET_WITHIN, greeting).await?
}

/// HTTP/2, agreed upon or with prior knowledge, or HTTP/1: the first bytes tell.
async fn begin<S>(
    gateway: Arc<Gateway>,
    mut stream: S,
    peer: Peer,
    is_http2: bool,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut begin = BytesMut::new();
    let read = within(preface(&mut stream, &mut begin)).await;
    let status = match &read {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        // Who comes and says nothing has asked for nothing.
        _ if begin.is_empty() => return read,
        _ if begin.starts_with(PREFACE) => {
            let (read, write) = tokio::io::split(stream);
            let begin = io::Cursor::new(begin.freeze());
            connection::http2(gateway, tokio::io::join(begin.chain(read), write), peer).await;
            return Ok(());
        }
        _ if is_http2 => StatusCode::BAD_REQUEST,
        // What of a head there is, and how it ends, is seen there.
        _ => {
            connection::http1(gateway, stream, begin, peer).await;
            return Ok(());
        }
    };
    gateway.counts.unheard(peer.address, status);
    read
}

/// Reads until it is clear whether this is the preface.
async fn preface<S: AsyncRead + Unpin>(stream: &mut S, begin: &mut BytesMut) -> io::Result<()> {
    while PREFACE.starts_with(begin) && begin.len() < PREFACE.len() {
        if stream.read_buf(begin).await? == 0 {
            break;
        }
    }
    Ok(())
}
