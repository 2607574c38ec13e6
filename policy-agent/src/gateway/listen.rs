//! Accepting connections, and finding out what they speak.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{Gateway, connection};

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
pub fn places(descriptors: u64) -> Arc<Semaphore> {
    let most = usize::try_from(descriptors / 4).unwrap_or(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(most.clamp(16, Semaphore::MAX_PERMITS)))
}

fn is_the_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

async fn greet(
    gateway: Arc<Gateway>,
    stream: TcpStream,
    client: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_keepalive(true)?;
    let Some(tls) = tls else {
        return begin(gateway, stream, client, Scheme::Http).await;
    };
    let stream = timeout(GREET_WITHIN, tls.accept(stream)).await??;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        connection::http2(gateway, stream, client, Scheme::Https).await;
        return Ok(());
    }
    begin(gateway, stream, client, Scheme::Https).await
}

/// HTTP/2 with prior knowledge, or HTTP/1: the first bytes tell.
async fn begin<S>(
    gateway: Arc<Gateway>,
    mut stream: S,
    client: SocketAddr,
    scheme: Scheme,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut begin = BytesMut::new();
    while PREFACE.starts_with(&begin) && begin.len() < PREFACE.len() {
        if timeout(GREET_WITHIN, stream.read_buf(&mut begin)).await?? == 0 {
            return Ok(());
        }
    }
    if begin.starts_with(PREFACE) {
        let (read, write) = tokio::io::split(stream);
        let begin = io::Cursor::new(begin.freeze());
        let stream = tokio::io::join(begin.chain(read), write);
        connection::http2(gateway, stream, client, scheme).await;
    } else {
        connection::http1(gateway, stream, begin, client, scheme).await;
    }
    Ok(())
}
