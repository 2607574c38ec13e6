//! Serves the requests of a client connection.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use bytes::BytesMut;
use http_body_util::Either;
use hyper::{
    Method, Request, Response, StatusCode,
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
    flow_control::{MeteredStream, WriteBacklog},
    framing_guard::{FramingGuard, FramingGuardHandle},
    head_fault::RequestHeadFault,
    refusal::RefusalFormat,
    request,
    request_framer::{MAX_HEAD_SIZE, RequestFramer},
    response_body::GatewayResponseBody,
    trusted_proxies::ConnectionPeer,
};

/// Maximum idle time of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// Interval of HTTP/2 keepalive pings.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of concurrent requests per HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 256;
/// Flow control window of a request body in bytes: how much is buffered before the service reads
/// it. It limits distant clients to this amount per round trip.
const STREAM_WINDOW: u32 = 128 * 1024;
/// Flow control window of a whole connection. Several requests can stall before they block the
/// others.
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Bytes of a response that are buffered for a client that does not read.
const MAX_STREAM_SEND_BUFFER: usize = 16 * 1024;

/// Maximum size of an HTTP/2 header list in the HTTP library. It is larger than the gateway's own
/// limit, so that most oversized requests get a response with a body
/// ([`backend_request::check_head`](super::backend_request::check_head)).
const MAX_HEADER_LIST_SIZE: u32 = 128 * 1024;

/// Serves HTTP/1. `prefix` contains the bytes already read.
pub(super) async fn serve_http1<S>(
    gateway: Arc<Gateway>,
    stream: S,
    prefix: BytesMut,
    peer: ConnectionPeer,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guard_handle = FramingGuardHandle::default();
    let (backlog, large_read_permits) = (WriteBacklog::default(), Arc::new(Semaphore::new(0)));
    let framer = RequestFramer::new(gateway.allows_tunnels);
    let guard = FramingGuard::new(stream, prefix, framer, guard_handle.clone());
    let io = TokioIo::new(MeteredStream::new(guard, backlog.clone(), large_read_permits));
    let service = service_fn(|request: Request<Incoming>| {
        let (gateway, guard_handle, backlog) =
            (Arc::clone(&gateway), guard_handle.clone(), backlog.clone());
        async move {
            if let Some(fault) = RequestHeadFault::from_marker_request(&request) {
                return Ok(fault_response(&gateway, fault, peer));
            }
            let is_connect = request.method() == Method::CONNECT;
            let has_upgrade = request.headers().contains_key(UPGRADE);
            let offers_upgrade = is_connect || has_upgrade && request.body().is_end_stream();
            let mut response = request::handle_request(gateway, request, peer).await;
            if let Either::Left(body) = response.body_mut() {
                body.set_backlog(&backlog);
            }
            if offers_upgrade {
                let status = response.status();
                guard_handle.resolve_upgrade(match is_connect {
                    true => status.is_success(),
                    false => status == StatusCode::SWITCHING_PROTOCOLS,
                });
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(MAX_HEAD_SIZE);
    let mut connection = pin!(server.serve_connection(io, service).with_upgrades());
    // An error ends the connection and needs no other handling.
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = guard_handle.requests_ended() => {}
        () = gateway.drain.draining() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

fn fault_response(
    gateway: &Gateway,
    fault: RequestHeadFault,
    peer: ConnectionPeer,
) -> Response<GatewayResponseBody> {
    let refusal = fault.refusal();
    gateway.metrics.record_unparsed_request(peer.address, refusal.status());
    let mut response = refusal.to_response(&RefusalFormat::default()).map(Either::Right);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Serves HTTP/2.
pub(super) async fn serve_http2<S>(gateway: Arc<Gateway>, stream: S, peer: ConnectionPeer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let gateway = Arc::clone(&gateway);
        async move { Ok::<_, Infallible>(request::handle_request(gateway, request, peer).await) }
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .enable_connect_protocol()
        .max_header_list_size(MAX_HEADER_LIST_SIZE)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_STREAM_SEND_BUFFER);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        _ = connection.as_mut() => return,
        () = gateway.drain.draining() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}
