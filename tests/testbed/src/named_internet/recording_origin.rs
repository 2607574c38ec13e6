//! A server with TLS that speaks HTTP/1.1 and HTTP/2, and remembers the requests that it got. It does
//! not tell its clients about them.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use http_body_util::{BodyExt as _, Full, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{HeaderValue, UPGRADE},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::{NamedInternet, WebSite, certificate_authority::ServerCertificate};
use crate::{network::NetworkNamespace, test_servers::HTTPS_PORT};

/// A request as the server got it.
#[derive(Clone, Debug)]
pub struct SeenRequest {
    /// The method.
    pub method: Method,
    /// The path of the target.
    pub path: String,
    /// For example `HTTP/2.0`.
    pub version: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl SeenRequest {
    /// All values of a header.
    pub fn values(&self, name: &str) -> Vec<String> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }
}

#[derive(Clone, Default)]
struct SeenRequests(Arc<Mutex<Vec<SeenRequest>>>);

/// The server. It ends with its internet.
pub struct RecordingOrigin {
    /// Its name and addresses.
    pub site: WebSite,
    seen: SeenRequests,
}

impl RecordingOrigin {
    /// Starts a server with a name of its own.
    pub fn start(
        names: &NamedInternet,
        internet: &NetworkNamespace,
        name: &str,
        certificate: ServerCertificate,
    ) -> Result<Self> {
        let _inside = internet.enter()?;
        Self::start_here(names, name, certificate)
    }

    /// The same in the calling thread's namespace.
    pub fn start_here(
        names: &NamedInternet,
        name: &str,
        certificate: ServerCertificate,
    ) -> Result<Self> {
        let (site, listener) = names.add_manual_site_here(name, HTTPS_PORT)?;
        let mut config = names.authority.server_config_with(certificate, name)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = TlsAcceptor::from(Arc::new(config));
        let seen = SeenRequests::default();
        let recorded = seen.clone();
        listener.set_nonblocking(true)?;
        let _entered = names.runtime().enter();
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, tls.clone(), recorded.clone()));
            }
        });
        Ok(Self { site, seen })
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.seen.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The only request so far.
    #[track_caller]
    pub fn only_request(&self) -> SeenRequest {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests[0].clone()
    }
}

async fn serve(stream: TcpStream, tls: TlsAcceptor, seen: SeenRequests) {
    let Ok(stream) = tls.accept(stream).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request| {
        let seen = seen.clone();
        async move { Ok::<_, Infallible>(seen.answer(request)) }
    });
    // The peer reports what fails.
    if is_http2 {
        let mut server = http2::Builder::new(TokioExecutor::new());
        server.enable_connect_protocol();
        let _ = server.serve_connection(TokioIo::new(stream), service).await;
    } else {
        let server = http1::Builder::new();
        let _ = server.serve_connection(TokioIo::new(stream), service).with_upgrades().await;
    }
}

type AnyBody = BoxBody<Bytes, hyper::Error>;

impl SeenRequests {
    fn answer(&self, mut request: Request<Incoming>) -> Response<AnyBody> {
        let seen = SeenRequest {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            version: format!("{:?}", request.version()),
            headers: request.headers().clone(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        let is_connect = request.method() == Method::CONNECT;
        if is_connect || request.headers().contains_key(UPGRADE) {
            let upgrade = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            return switched(is_connect);
        }
        match request.uri().path() {
            // Everything comes back as it comes: the body and its trailers.
            "/echo" => Response::new(request.into_body().boxed()),
            "/test.Echo/Unary" => grpc_response(request.into_body()),
            _ => Response::new(text("an answer\n")),
        }
    }
}

fn text(text: &'static str) -> AnyBody {
    Full::from(text).map_err(|never| match never {}).boxed()
}

fn switched(is_connect: bool) -> Response<AnyBody> {
    let mut response = Response::new(text(""));
    if !is_connect {
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
        response.headers_mut().insert("connection", HeaderValue::from_static("upgrade"));
    }
    response
}

/// A unary call that returns its message.
fn grpc_response(body: Incoming) -> Response<AnyBody> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = body.with_trailers(async move { Some(Ok(trailers)) });
    let mut response = Response::new(body.boxed());
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}
