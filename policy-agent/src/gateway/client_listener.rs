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
    Gateway,
    flow_control::{SOCKET_UNSENT_LIMIT, TLS_UNSENT_LIMIT},
    http_server, proxy_protocol,
    trusted_proxies::ConnectionPeer,
};

/// How a client reached the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UrlScheme {
    /// As it is.
    Http,
    /// Inside TLS.
    Https,
}

impl UrlScheme {
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
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long is waited when no connection can be accepted for want of descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// What clients of HTTP/2 begin with (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a listener for ever.
pub async fn serve_listener(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) {
    loop {
        let Ok(permit) = Arc::clone(&gateway.connection_permits).acquire_owned().await else {
            return;
        };
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_client_error(&error) {
                    tracing::warn!("the gateway cannot accept connections: {error}");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
                continue;
            }
        };
        let (gateway, tls) = (Arc::clone(&gateway), tls.clone());
        tokio::spawn(async move {
            let _permit = permit;
            // What goes wrong here is the client's doing, and its connection ends.
            let _ = serve_client(gateway, stream, client, tls).await;
        });
    }
}

/// As many connections as may be served at a time.
pub fn connection_permits(descriptors: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(descriptors.clamp(16, Semaphore::MAX_PERMITS)))
}

fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Finds out whose connection it is and what it speaks, and serves it. An error ends the connection; it
/// was the client's doing, and is counted where there is more to it than nothing.
async fn serve_client(
    gateway: Arc<Gateway>,
    mut stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket.set_keepalive(true)?;
    socket.set_tcp_notsent_lowat(SOCKET_UNSENT_LIMIT)?;
    let mut peer = ConnectionPeer { address: client.ip().to_canonical(), scheme: UrlScheme::Http };
    if gateway.proxy_protocol && gateway.trusted_proxies.contains(peer.address) {
        let proxied = with_handshake_timeout(proxy_protocol::read_proxy_header(&mut stream)).await;
        let record = |error: &_| {
            gateway.metrics.record_unparsed_request(peer.address, handshake_status(error))
        };
        let Some(proxied) = proxied.inspect_err(record)? else { return Ok(()) };
        peer.address = proxied.address.unwrap_or(peer.address);
        peer.scheme = if proxied.is_tls { UrlScheme::Https } else { UrlScheme::Http };
    }
    let Some(tls) = tls else { return detect_and_serve(gateway, stream, peer, false).await };
    let failed = |error: &io::Error| gateway.metrics.record_failed_handshake(peer.address, error);
    // Who comes and says nothing, as health checks do, has not failed.
    if with_handshake_timeout(stream.peek(&mut [0])).await.inspect_err(failed)? == 0 {
        return Ok(());
    }
    let mut stream = with_handshake_timeout(tls.accept(stream)).await.inspect_err(failed)?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_UNSENT_LIMIT));
    peer.scheme = UrlScheme::Https;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    detect_and_serve(gateway, stream, peer, is_http2).await
}

fn handshake_status(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn with_handshake_timeout<T>(greeting: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(HANDSHAKE_TIMEOUT, greeting).await?
}

/// HTTP/2, agreed upon or with prior knowledge, or HTTP/1: the first bytes tell.
async fn detect_and_serve<S>(
    gateway: Arc<Gateway>,
    mut stream: S,
    peer: ConnectionPeer,
    is_http2: bool,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut prefix = BytesMut::new();
    let read = with_handshake_timeout(read_preface(&mut stream, &mut prefix)).await;
    let status = match &read {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        // Who comes and says nothing has asked for nothing.
        _ if prefix.is_empty() => return read,
        _ if prefix.starts_with(HTTP2_PREFACE) => {
            let (read, write) = tokio::io::split(stream);
            let prefix = io::Cursor::new(prefix.freeze());
            http_server::serve_http2(gateway, tokio::io::join(prefix.chain(read), write), peer)
                .await;
            return Ok(());
        }
        _ if is_http2 => StatusCode::BAD_REQUEST,
        // What of a head there is, and how it ends, is seen there.
        _ => {
            http_server::serve_http1(gateway, stream, prefix, peer).await;
            return Ok(());
        }
    };
    gateway.metrics.record_unparsed_request(peer.address, status);
    read
}

/// Reads until it is clear whether this is the preface.
async fn read_preface<S: AsyncRead + Unpin>(
    stream: &mut S,
    prefix: &mut BytesMut,
) -> io::Result<()> {
    while HTTP2_PREFACE.starts_with(prefix) && prefix.len() < HTTP2_PREFACE.len() {
        if stream.read_buf(prefix).await? == 0 {
            break;
        }
    }
    Ok(())
}
