//! Serves the requests of an opened connection.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
};

use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::{
    KEEP_ALIVE_INTERVAL, alpn::AlpnChoice, client_tls::ReplayedStream, session::InterceptedSession,
    settings::InterceptionPermits,
};
use crate::proxy::{
    http::http1_server,
    socket::{drain_to_eof, reset_connection, wait_for_reset},
    upstream::MAX_HEAD_SIZE,
};

/// Maximum number of concurrent requests per HTTP/2 connection.
const MAX_CONCURRENT_STREAMS: u32 = 128;
/// Flow control windows in bytes: what is buffered of requests that the server does not read.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 512 * 1024;
/// Bytes of a response that are buffered for a sandbox that does not read.
const MAX_STREAM_SEND_BUFFER: usize = 16 * 1024;

/// Serves a connection until it ends. Its state is in boxes of its own, which nothing copies: a task
/// would reserve space for each place that it is moved through.
pub(super) fn serve_requests(
    session: Arc<InterceptedSession>,
    stream: TlsStream<ReplayedStream>,
    extended_connect: bool,
    permits: InterceptionPermits,
) -> impl Future<Output = ()> + Send {
    let serving: Pin<Box<dyn Future<Output = bool> + Send>> = match session.choice {
        AlpnChoice::Http2 => Box::pin(serve_http2(&session, stream, extended_connect)),
        AlpnChoice::Http1 | AlpnChoice::Nothing => Box::pin(serve_http1(&session, stream)),
    };
    async move {
        let (_permits, admitted) = (permits, &session.admitted);
        if !serving.await {
            return reset_connection(&admitted.client);
        }
        if session.is_last_refused.load(Ordering::Relaxed) {
            let drained = Box::pin(drain_to_eof(&admitted.client));
            let _ = timeout(admitted.context().timeouts.linger, drained).await;
        }
    }
}

/// Returns whether the connection ended in order.
fn serve_http1(
    session: &Arc<InterceptedSession>,
    stream: TlsStream<ReplayedStream>,
) -> impl Future<Output = bool> + Send + use<> {
    let (session, serving) = (Arc::clone(session), Arc::clone(session));
    // Boxed, because an idle connection would reserve space for a request otherwise.
    let service = service_fn(move |request: Request<Incoming>| {
        Box::pin(Arc::clone(&serving).handle_request(request))
    });
    let server = http1_server(session.admitted.context().timeouts.http_idle);
    let connection =
        Box::pin(server.serve_connection(TokioIo::new(stream), service).with_upgrades());
    async move {
        let ended = tokio::select! {
            ended = connection => ended,
            () = wait_for_reset(&session.admitted.client) => return false,
        };
        match ended {
            Err(error) if error.is_parse() => {
                session.record_unparsed();
                true
            }
            Err(error) => error.is_timeout(),
            Ok(()) => true,
        }
    }
}

/// The same for HTTP/2.
fn serve_http2(
    session: &Arc<InterceptedSession>,
    stream: TlsStream<ReplayedStream>,
    extended_connect: bool,
) -> impl Future<Output = bool> + Send + use<> {
    let (session, serving) = (Arc::clone(session), Arc::clone(session));
    let service = service_fn(move |request: Request<Incoming>| {
        Box::pin(Arc::clone(&serving).handle_request(request))
    });
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .max_concurrent_streams(MAX_CONCURRENT_STREAMS)
        .max_header_list_size(u32::try_from(MAX_HEAD_SIZE).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_STREAM_SEND_BUFFER);
    if extended_connect {
        server.enable_connect_protocol();
    }
    let connection = Box::pin(server.serve_connection(TokioIo::new(stream), service));
    async move {
        tokio::select! {
            ended = connection => ended.is_ok(),
            () = wait_for_reset(&session.admitted.client) => false,
        }
    }
}
