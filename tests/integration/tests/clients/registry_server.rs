//! The web servers of every name: one address in each family, HTTP on port 80, HTTP/2 and HTTP/1.1
//! over TLS on port 443. They serve the [`RegistryContent`] for a host and a path.

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
use policy_testbed::{
    named_internet::certificate_authority::CertificateAuthority,
    network::NetworkNamespace,
    test_servers::{HTTP_PORT, HTTPS_PORT},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::{Builder, Runtime},
};
use tokio_rustls::TlsAcceptor;

use super::{git_backend, git_client, registry_content::RegistryContent};

/// The servers. They end on drop.
pub(crate) struct RegistryServer {
    served: Arc<RegistryState>,
    _runtime: Runtime,
}

/// Their content, and the requests so far.
struct RegistryState {
    content: RegistryContent,
    requests: Mutex<Vec<RegistryRequest>>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct RegistryRequest {
    /// The requested host.
    pub(crate) host: String,
    /// For example `HTTP/2.0`.
    pub(crate) version: String,
    /// The header `Authorization`.
    pub(crate) authorization: String,
}

impl RegistryServer {
    /// Starts the servers at addresses of a namespace.
    pub(crate) fn start(
        namespace: &NetworkNamespace,
        addresses: &[IpAddr],
        authority: &Arc<CertificateAuthority>,
        goods: RegistryContent,
    ) -> Result<Self> {
        // Threads inherit the namespace.
        let _inside = namespace.enter()?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let served = Arc::new(RegistryState { content: goods, requests: Mutex::default() });
        let entered = runtime.enter();
        for address in addresses {
            let mut tls = authority.server_config(*address)?;
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            let tls = TlsAcceptor::from(Arc::new(tls));
            tokio::spawn(accept_forever(
                listen_on((*address, HTTP_PORT).into())?,
                None,
                Arc::clone(&served),
            ));
            tokio::spawn(accept_forever(
                listen_on((*address, HTTPS_PORT).into())?,
                Some(tls),
                Arc::clone(&served),
            ));
        }
        drop(entered);
        Ok(Self { served, _runtime: runtime })
    }

    /// Returns whether a client requested a page of this host.
    pub(crate) fn was_host_requested(&self, host: &str) -> bool {
        self.served.lock_requests().iter().any(|request| request.host == host)
    }

    /// The requests with this header `Authorization`.
    pub(crate) fn requests_with(&self, authorization: &str) -> Vec<RegistryRequest> {
        let requests = self.served.lock_requests();
        requests.iter().filter(|it| it.authorization == authorization).cloned().collect()
    }
}

fn listen_on(at: SocketAddr) -> Result<tokio::net::TcpListener> {
    let listener = TcpListener::bind(at).with_context(|| format!("TCP {at}"))?;
    listener.set_nonblocking(true)?;
    Ok(tokio::net::TcpListener::from_std(listener)?)
}

async fn accept_forever(
    listener: tokio::net::TcpListener,
    tls: Option<TlsAcceptor>,
    served: Arc<RegistryState>,
) {
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(stream, tls.clone(), Arc::clone(&served)));
        }
    }
}

/// Serves one connection. If it fails, the client reports that.
async fn serve_connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    served: Arc<RegistryState>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let Some(tls) = tls else { return serve_http(stream, false, served).await };
    let stream = tls.accept(stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    serve_http(stream, http2, served).await
}

async fn serve_http<S>(stream: S, http2: bool, served: Arc<RegistryState>) -> Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let served = Arc::clone(&served);
        async move { Ok::<_, Infallible>(served.serve_request(request).await) }
    });
    let stream = TokioIo::new(stream);
    if http2 {
        let server = http2::Builder::new(TokioExecutor::new());
        return Ok(server.serve_connection(stream, service).await?);
    }
    Ok(http1::Builder::new().serve_connection(stream, service).await?)
}

impl RegistryState {
    async fn serve_request(&self, request: Request<Incoming>) -> Response<Body> {
        let (host, path) = (request_host(&request), request.uri().path().to_owned());
        self.lock_requests().push(RegistryRequest::of(&request, &host));
        if host == git_client::GIT_HOST && path.starts_with(git_client::REPOSITORY_PATH) {
            return git_backend::serve_git(self.content.repositories(), request).await;
        }
        match self.content.find_page(&host, &path) {
            Some(page) => page.to_response(),
            None if path == "/" => Response::new(Body::from(format!("a page of {host}"))),
            None => text_response(StatusCode::NOT_FOUND, format!("{host} has no {path}")),
        }
    }

    fn lock_requests(&self) -> MutexGuard<'_, Vec<RegistryRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RegistryRequest {
    fn of(request: &Request<Incoming>, host: &str) -> Self {
        let authorization = request.headers().get(header::AUTHORIZATION);
        let authorization = authorization.and_then(|value| value.to_str().ok());
        Self {
            host: host.to_owned(),
            version: format!("{:?}", request.version()),
            authorization: authorization.unwrap_or_default().to_owned(),
        }
    }
}

/// The host of a request. HTTP/2 has it in the URI.
fn request_host(request: &Request<Incoming>) -> String {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = request.uri().host().or(host).unwrap_or_default();
    host.to_ascii_lowercase()
}

/// A plain-text response that is not a page.
pub(crate) fn text_response(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}
