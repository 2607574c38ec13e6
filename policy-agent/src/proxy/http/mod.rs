//! Connections to port 80: the proxy decides on every request by its Host and forwards it to that
//! host. The HTTP library parses each request and serializes it again, so the server sees exactly
//! what the decision was based on.

mod http_session;
pub(super) mod refusal_response;
pub(super) mod request_host;
mod upgrade_relay;

use std::{pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use policy_common::reason::Reason;
use tokio::time::{sleep, timeout};

use self::http_session::HttpSession;
pub(super) use self::http_session::{
    ConnectionClosed, missing_response_reason, remove_length_if_chunked,
};
use super::{
    admitted::AdmittedConnection,
    proxy_metrics::ConnectionProtocol,
    socket::{SharedTcpStream, drain_to_eof, reset_connection, wait_for_reset},
    upstream::MAX_HEAD_SIZE,
};

/// Maximum number of header fields in a response.
const MAX_RESPONSE_HEADERS: usize = 256;

/// How a connection ended.
enum HttpServeOutcome {
    /// In order, or with a response that describes the error.
    Finished,
    /// The client did not send HTTP/1.
    NotHttp,
    /// No request arrived in time.
    TimedOut,
    /// An I/O error on either side.
    Broken,
}

/// Serves a connection until it ends.
pub(super) async fn serve_http(admitted: AdmittedConnection) {
    let session = Arc::new(HttpSession::new(admitted));
    let outcome = serve_requests(&session).await;
    let admitted = &session.admitted;
    match outcome {
        HttpServeOutcome::Finished => {}
        HttpServeOutcome::NotHttp => {
            admitted.record_refused(ConnectionProtocol::Http, None, Reason::NotJudgeable.into())
        }
        HttpServeOutcome::TimedOut => {
            admitted.record_refused(ConnectionProtocol::Http, None, Reason::ProxyTimeout.into())
        }
        HttpServeOutcome::Broken => return session.reset(),
    }
    if matches!(outcome, HttpServeOutcome::TimedOut) {
        return reset_connection(&admitted.client);
    }
    if matches!(outcome, HttpServeOutcome::NotHttp) || session.is_last_refused() {
        // Boxed because an idle connection would reserve space for it otherwise.
        let drained = Box::pin(drain_to_eof(&admitted.client));
        let _ = timeout(admitted.context().timeouts.linger, drained).await;
    }
}

async fn serve_requests(session: &Arc<HttpSession>) -> HttpServeOutcome {
    let client = &session.admitted.client;
    let timeouts = session.admitted.context().timeouts;
    let service = service_fn(|request: Request<Incoming>| {
        let session = Arc::clone(session);
        async move { session.handle_request(request).await }
    });
    let io = TokioIo::new(SharedTcpStream(Arc::clone(client)));
    let connection = http1_server(timeouts.http_idle).serve_connection(io, service).with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return serve_outcome(ended),
        () = wait_for_reset(client) => return HttpServeOutcome::Broken,
        () = sleep(timeouts.name_detection) => {}
    }
    if !session.has_received_request() {
        return HttpServeOutcome::TimedOut;
    }
    tokio::select! {
        ended = connection => serve_outcome(ended),
        () = wait_for_reset(client) => HttpServeOutcome::Broken,
    }
}

/// A server that rewrites nothing that it need not.
pub(super) fn http1_server(idle: Duration) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_HEAD_SIZE)
        .max_header_size(MAX_HEAD_SIZE)
        .preserve_header_case(true)
        .auto_date_header(false)
        .half_close(true);
    server
}

fn serve_outcome(ended: hyper::Result<()>) -> HttpServeOutcome {
    match ended {
        Ok(()) => HttpServeOutcome::Finished,
        Err(error) if error.is_parse() => HttpServeOutcome::NotHttp,
        Err(error) if error.is_timeout() => HttpServeOutcome::Finished,
        Err(_) => HttpServeOutcome::Broken,
    }
}
