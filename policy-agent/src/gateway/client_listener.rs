//! Accepts client connections and detects their protocol.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

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
    client_connections::{ClientConnection, TooManyClientConnections},
    flow_control::TLS_UNSENT_LIMIT,
    http_server, proxy_protocol,
    trusted_proxies::ConnectionPeer,
};
use crate::net::sandbox_dialer::SOCKET_UNSENT_LIMIT;

/// The scheme that a client used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UrlScheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

impl UrlScheme {
    /// The scheme as written in URLs.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Time limit for the PROXY header, the TLS handshake and the HTTP preface each.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, such as when the process is out of file descriptors.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The client preface of HTTP/2 (RFC 9113, 3.4).
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a listener until the agent stops.
pub(super) async fn serve_listener(
    gateway: Arc<Gateway>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
) {
    loop {
        let accepting = async {
            let permit = Arc::clone(&gateway.connection_permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let Some((permit, accepted)) = gateway.drain.run_until_draining(accepting).await else {
            return;
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_client_error(&error) {
                    tracing::warn!("the gateway cannot accept connections: {error}");
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
                continue;
            }
        };
        let (serving, tls) = (Arc::clone(&gateway), tls.clone());
        let draining = Arc::clone(&gateway);
        gateway.workers.serve_connection(stream, move |stream, worker_load| {
            draining.drain.spawn(async move {
                let _held = (permit, worker_load);
                // Errors here are caused by the client and end its connection.
                let _ = serve_client(serving, stream, client, tls).await;
            });
        });
    }
}

/// The permits for concurrent client connections.
pub(super) fn connection_permits(descriptors: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(descriptors.clamp(16, Semaphore::MAX_PERMITS)))
}

fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Detects client and protocol of a connection and serves it. Errors are caused by the client and
/// end the connection. They are counted, unless the client sent nothing.
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
    let Ok(_counted) = count_connection(&gateway, peer.address) else { return Ok(()) };
    let Some(tls) = tls else { return detect_and_serve(gateway, stream, peer, false).await };
    let record_failure =
        |error: &io::Error| gateway.metrics.record_failed_handshake(peer.address, error);
    // A client that connects and sends nothing, such as a health check, is not a failure.
    let mut first_byte = [0];
    let first_byte = with_handshake_timeout(stream.peek(&mut first_byte));
    let Some(first_byte) = gateway.drain.run_until_draining(first_byte).await else {
        return Ok(());
    };
    if first_byte.inspect_err(record_failure)? == 0 {
        return Ok(());
    }
    let mut stream =
        with_handshake_timeout(tls.accept(stream)).await.inspect_err(record_failure)?;
    stream.get_mut().1.set_buffer_limit(Some(TLS_UNSENT_LIMIT));
    peer.scheme = UrlScheme::Https;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    detect_and_serve(gateway, stream, peer, is_http2).await
}

/// Counts a connection of a client, as long as the returned value exists. The connections of a
/// trusted proxy are those of many clients.
fn count_connection(
    gateway: &Gateway,
    client: IpAddr,
) -> Result<Option<ClientConnection>, TooManyClientConnections> {
    if gateway.trusted_proxies.contains(client) {
        return Ok(None);
    }
    let counted = gateway.client_connections.open(client);
    let record = |_: &_| {
        gateway.metrics.record_unparsed_request(client, StatusCode::TOO_MANY_REQUESTS);
    };
    counted.inspect_err(record)
}

fn handshake_status(error: &io::Error) -> StatusCode {
    match error.kind() {
        io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn with_handshake_timeout<T>(
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    timeout(HANDSHAKE_TIMEOUT, handshake).await?
}

/// Serves HTTP/2, negotiated by ALPN or with prior knowledge, or HTTP/1, depending on the first
/// bytes.
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
    let reading = with_handshake_timeout(read_preface(&mut stream, &mut prefix));
    let Some(read) = gateway.drain.run_until_draining(reading).await else { return Ok(()) };
    let status = match &read {
        Err(error) if error.kind() == io::ErrorKind::TimedOut => StatusCode::REQUEST_TIMEOUT,
        // A client that connects and sends nothing has made no request.
        _ if prefix.is_empty() => return read,
        _ if prefix.starts_with(HTTP2_PREFACE) => {
            let (read, write) = tokio::io::split(stream);
            let prefix = io::Cursor::new(prefix.freeze());
            http_server::serve_http2(gateway, tokio::io::join(prefix.chain(read), write), peer)
                .await;
            return Ok(());
        }
        _ if is_http2 => StatusCode::BAD_REQUEST,
        // The HTTP/1 server also handles incomplete heads.
        _ => {
            http_server::serve_http1(gateway, stream, prefix, peer).await;
            return Ok(());
        }
    };
    gateway.metrics.record_unparsed_request(peer.address, status);
    read
}

/// Reads until the bytes either match the HTTP/2 preface or differ from it.
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
