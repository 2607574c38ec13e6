//! One client's connection, with its requests.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use http_body_util::Either;
use hyper::{
    Request, Response,
    body::{Body as _, Incoming},
    header::{CONNECTION, HeaderValue, UPGRADE},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use super::{
    Gateway,
    body::Answer,
    fault::Fault,
    flow::{Backlog, Metered},
    framing::LONGEST_HEAD,
    refusal::Reader,
    strict::{Offers, Strict},
    trusted_proxies::Peer,
    visit,
};

/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(600);
/// How often a client of HTTP/2 is asked whether it is still there.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// Requests of one HTTP/2 connection at a time.
const STREAMS: u32 = 256;
/// Bytes of one request's body that are taken before the service has them. Clients far away send no
/// faster than so many for each round trip.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same of all requests of a connection. More than one of them may stand still before the others
/// have to.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Bytes of one answer that are held for a client that does not read.
const UNSENT_OF_STREAM: usize = 16 * 1024;

/// Bytes of fields that the HTTP library takes with a request of HTTP/2: more than a request may have
/// ([`prepare::check`](super::prepare::check) says so with a body), so that it refuses few itself.
const LONGEST_FIELDS: u32 = 128 * 1024;

/// Serves HTTP/1. What was read already is in `begin`.
pub async fn http1<S>(gateway: Arc<Gateway>, stream: S, begin: BytesMut, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let offers = Offers::default();
    let (backlog, large) = (Backlog::default(), Arc::new(Semaphore::new(0)));
    let strict = Strict::new(stream, begin, offers.clone());
    let io = TokioIo::new(Metered::new(strict, backlog.clone(), large));
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, offers, backlog) = (Arc::clone(&gateway), offers.clone(), backlog.clone());
        async move {
            if let Some(fault) = Fault::of(&request) {
                return Ok(refuse(&gateway, fault, peer));
            }
            let offered = request.headers().contains_key(UPGRADE) && request.body().is_end_stream();
            let mut response = visit::answer(gateway, request, peer).await;
            if let Either::Left(body) = response.body_mut() {
                body.goes_to(&backlog);
            }
            if offered {
                offers.answer(response.status() == hyper::StatusCode::SWITCHING_PROTOCOLS);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE).max_buf_size(LONGEST_HEAD);
    let mut connection = pin!(server.serve_connection(io, service).with_upgrades());
    // An error ends the connection, which is all there is to do.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = offers.ended() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn refuse(gateway: &Gateway, fault: Fault, peer: Peer) -> Response<Answer> {
    let refusal = fault.refusal();
    gateway.counts.unheard(peer.address, refusal.code());
    let mut response = refusal.answer(&Reader::default()).map(Either::Right);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Serves HTTP/2.
pub async fn http2<S>(gateway: Arc<Gateway>, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(visit::answer(gateway, request, peer).await) }
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(ASK_EVERY)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(LONGEST_FIELDS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(UNSENT_OF_STREAM);
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}
