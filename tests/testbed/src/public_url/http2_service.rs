//! A service that speaks nothing but HTTP/2, in plain text or over TLS. It answers with what it
//! received, and echoes WebSockets that come as extended CONNECT (RFC 8441) without framing.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use http_body_util::Full;
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    runtime::Runtime,
};
use tokio_rustls::TlsAcceptor;

use crate::{named_internet::web_server, network::NetworkNamespace};

/// The service. It ends, with its connections, on drop.
pub struct Http2Service {
    connections: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Http2Service {
    /// Starts the service on a port of all addresses of a namespace.
    ///
    /// # Errors
    /// The port is unavailable.
    pub fn start(
        namespace: &NetworkNamespace,
        port: u16,
        tls: Option<TlsAcceptor>,
    ) -> Result<Self> {
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let accept = |listener| accept_forever(listener, tls, counted);
        let runtime = web_server::serve_in_namespace(namespace, port, accept)?;
        Ok(Self { connections, _runtime: runtime })
    }

    /// The number of connections so far.
    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn accept_forever(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: Arc<AtomicUsize>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        connections.fetch_add(1, Ordering::Relaxed);
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => serve(stream).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream).await;
                    }
                }
            }
        });
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server.enable_connect_protocol();
    // The peer reports what fails.
    let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() == Method::CONNECT {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let Ok(upgraded) = upgrade.await else { return };
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
            let _ = tokio::io::copy(&mut read, &mut write).await;
        });
        return Ok(Response::new(Full::default()));
    }
    let mut text = format!("{} {} {:?}\n", request.method(), request.uri(), request.version());
    for (name, value) in request.headers() {
        text += &format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes()));
    }
    Ok(Response::new(Full::from(text)))
}
