//! One client's connection, with its requests.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use bytes::BytesMut;
use hyper::{
    Request,
    body::{Body as _, Incoming},
    header::UPGRADE,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Gateway,
    listen::Scheme,
    strict::{Offers, Strict},
    visit,
};

/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(600);
/// How often a client of HTTP/2 is asked whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 256;

/// Serves HTTP/1. What was read already is in `begin`.
pub async fn http1<S>(
    gateway: Arc<Gateway>,
    stream: S,
    begin: BytesMut,
    client: SocketAddr,
    scheme: Scheme,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let offers = Offers::default();
    let io = TokioIo::new(Strict::new(stream, begin, offers.clone()));
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, offers) = (Arc::clone(&gateway), offers.clone());
        async move {
            let offered = request.headers().contains_key(UPGRADE) && request.body().is_end_stream();
            let response = visit::answer(gateway, request, client, scheme).await;
            if offered {
                offers.answer(response.status() == hyper::StatusCode::SWITCHING_PROTOCOLS);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE);
    // An error ends the connection, which is all there is to do.
    let _ = server.serve_connection(io, service).with_upgrades().await;
}

/// Serves HTTP/2.
pub async fn http2<S>(gateway: Arc<Gateway>, stream: S, client: SocketAddr, scheme: Scheme)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(visit::answer(gateway, request, client, scheme).await) }
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK_EVERY)
        .max_concurrent_streams(STREAMS)
        .adaptive_window(true);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
