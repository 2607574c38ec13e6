//! The web servers of every name in the field: one address in each family, HTTP at port 80, HTTP/2 and
//! HTTP/1.1 over TLS at port 443. They serve what [`Goods`] has for a host and a path.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context as _, Result};
use axum::{
    body::Body,
    http::{Request, Response, StatusCode, header},
};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy_tests::{
    names::authority::Authority,
    server::{HTTP, HTTPS},
    world::Namespace,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;

use super::{cgi, git, goods::Goods};

/// The servers; they end on drop.
pub struct Origin {
    served: Arc<Served>,
    _runtime: Runtime,
}

/// What they have, and whom they were taken for.
struct Served {
    goods: Goods,
    hosts: Mutex<Vec<String>>,
}

impl Origin {
    /// Starts them at addresses of a namespace.
    pub fn start(
        namespace: &Namespace,
        addresses: &[IpAddr],
        authority: &Arc<Authority>,
        goods: Goods,
    ) -> Result<Self> {
        // Threads stay in the namespace that they are started in.
        let _inside = namespace.enter()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let served = Arc::new(Served { goods, hosts: Mutex::default() });
        let entered = runtime.enter();
        for address in addresses {
            let mut tls = authority.server(*address)?;
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let tls = TlsAcceptor::from(Arc::new(tls));
            tokio::spawn(accept(listen((*address, HTTP).into())?, None, Arc::clone(&served)));
            tokio::spawn(accept(listen((*address, HTTPS).into())?, Some(tls), Arc::clone(&served)));
        }
        drop(entered);
        Ok(Self { served, _runtime: runtime })
    }

    /// Whether somebody asked for a page of this host.
    pub fn was_asked_for(&self, host: &str) -> bool {
        self.served.hosts().iter().any(|asked| asked == host)
    }
}

fn listen(at: SocketAddr) -> Result<tokio::net::TcpListener> {
    let listener = TcpListener::bind(at).with_context(|| format!("TCP {at}"))?;
    listener.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}

async fn accept(listener: tokio::net::TcpListener, tls: Option<TlsAcceptor>, served: Arc<Served>) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, tls.clone(), Arc::clone(&served)));
        }
    }
}

/// A connection that fails has a peer that notices.
async fn answer(stream: TcpStream, tls: Option<TlsAcceptor>, served: Arc<Served>) -> Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return talk(stream, false, served).await };
    let stream = tls.accept(stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    talk(stream, http2, served).await
}

async fn talk<S>(stream: S, http2: bool, served: Arc<Served>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(served.serve(request).await) }
    });
    let stream = TokioIo::new(stream);
    if http2 {
        let server = http2::Builder::new(TokioExecutor::new());
        return Ok(server.serve_connection(stream, service).await?);
    }
    Ok(http1::Builder::new().serve_connection(stream, service).await?)
}

impl Served {
    async fn serve(&self, request: Request<Incoming>) -> Response<Body> {
        let (host, path) = (host_of(&request), request.uri().path().to_owned());
        self.hosts().push(host.clone());
        if host == git::HOST && path.starts_with(git::REPOSITORY) {
            return cgi::git(self.goods.repositories(), request).await;
        }
        match self.goods.page(&host, &path) {
            Some(page) => page.response(),
            None if path == "/" => Response::new(Body::from(format!("a page of {host}"))),
            None => status(StatusCode::NOT_FOUND, format!("{host} has no {path}")),
        }
    }

    fn hosts(&self) -> MutexGuard<'_, Vec<String>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a request is for: HTTP/2 has it in the URI.
fn host_of(request: &Request<Incoming>) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().host().or(host).unwrap_or_default();
    host.to_ascii_lowercase()
}

/// An answer that is no page.
pub fn status(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
