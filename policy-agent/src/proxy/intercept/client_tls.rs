//! TLS towards the sandbox. Each sandbox has configurations of its own, so that no sessions are
//! shared; nothing is resumed, and no early data is accepted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::Result;
use rustls::{
    ServerConfig,
    crypto::ring,
    server::{NoServerSessionStorage, ResolvesServerCert},
};
use tokio::io::{AsyncRead, Join, ReadBuf, join};
use tokio_rustls::{StartHandshake, server::TlsStream};

use super::alpn::AlpnChoice;
use crate::{
    ca::{LeafCache, SandboxCa},
    proxy::socket::SharedTcpStream,
};

/// The TLS configurations of one sandbox, by what its client may agree on.
#[derive(Debug)]
pub(in crate::proxy) struct ClientTls {
    leaves: Arc<LeafCache>,
    nothing: Arc<ServerConfig>,
    http1: Arc<ServerConfig>,
    http2: Arc<ServerConfig>,
}

impl ClientTls {
    /// The configurations with certificates of an authority.
    ///
    /// # Errors
    /// The TLS library rejects them.
    pub(in crate::proxy) fn new(ca: SandboxCa) -> Result<Self> {
        let leaves = Arc::new(LeafCache::new(ca));
        Ok(Self {
            nothing: server_config(&leaves, AlpnChoice::Nothing)?,
            http1: server_config(&leaves, AlpnChoice::Http1)?,
            http2: server_config(&leaves, AlpnChoice::Http2)?,
            leaves,
        })
    }

    /// The certificate of the authority (PEM).
    pub(in crate::proxy) fn ca_pem(&self) -> &str {
        self.leaves.ca().certificate_pem()
    }

    /// Completes the handshake with the client.
    ///
    /// # Errors
    /// The client ends the connection, for example because it does not trust the authority.
    pub(super) async fn accept(
        &self,
        handshake: StartHandshake<ReplayedStream>,
        choice: AlpnChoice,
    ) -> io::Result<TlsStream<ReplayedStream>> {
        let config = match choice {
            AlpnChoice::Nothing => &self.nothing,
            AlpnChoice::Http1 => &self.http1,
            AlpnChoice::Http2 => &self.http2,
        };
        let mut stream = handshake.into_stream(Arc::clone(config)).await?;
        stream.get_mut().1.set_buffer_limit(Some(super::TLS_UNSENT_LIMIT));
        Ok(stream)
    }
}

fn server_config(leaves: &Arc<LeafCache>, choice: AlpnChoice) -> Result<Arc<ServerConfig>> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let resolver: Arc<dyn ResolvesServerCert> = Arc::<LeafCache>::clone(leaves);
    let mut config = builder.with_cert_resolver(resolver);
    config.alpn_protocols = choice.only_offer().protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The client's stream, with the bytes that were already read from it at its beginning.
pub(super) type ReplayedStream = Join<ReplayedReader, SharedTcpStream>;

/// The client's stream as [`ReplayedStream`].
pub(super) fn replayed_stream(replayed: Vec<u8>, stream: SharedTcpStream) -> ReplayedStream {
    let reader = SharedTcpStream(Arc::clone(&stream.0));
    join(ReplayedReader { replayed, position: 0, stream: reader }, stream)
}

/// Reads the bytes again, then what follows them.
pub(super) struct ReplayedReader {
    replayed: Vec<u8>,
    position: usize,
    stream: SharedTcpStream,
}

impl AsyncRead for ReplayedReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.replayed[self.position..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let count = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..count]);
        self.position += count;
        if self.position == self.replayed.len() {
            (self.replayed, self.position) = (Vec::new(), 0);
        }
        Poll::Ready(Ok(()))
    }
}
