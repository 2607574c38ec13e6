//! Connections to port 80: every request is judged by its Host, and goes on to where that name
//! leads. The HTTP library reads requests and writes them anew, so that what was judged is what the
//! server sees.

mod answer;
mod request;
mod session;
mod upgrade;

use std::{pin::pin, sync::Arc, time::Duration};

use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use policy_common::reason::Reason;
use tokio::time::{sleep, timeout};

use self::session::Session;
use super::{
    claim::Claim,
    counts::Protocol,
    socket::{Stream, broken, drain, reset},
};

/// Bytes that the head of a request or an answer may take, and that are held of a body.
const LONGEST_HEAD: usize = 64 * 1024;
/// Fields that the head of an answer may have.
const MOST_FIELDS: usize = 256;

/// How a connection ended.
enum Outcome {
    /// In good order, or with an answer that says what is wrong.
    Done,
    /// What came is not HTTP/1.
    NotHttp,
    /// Nothing came in time.
    Silent,
    /// One of the sides is broken.
    Broken,
}

/// Serves a connection until it is over.
pub async fn serve(claim: Claim) {
    let session = Arc::new(Session::new(claim));
    let outcome = requests(&session).await;
    let claim = &session.claim;
    match outcome {
        Outcome::Done => {}
        Outcome::NotHttp => claim.refuse(Protocol::Http, None, Reason::NotJudgeable.into()),
        Outcome::Silent => claim.refuse(Protocol::Http, None, Reason::ProxyTimeout.into()),
        Outcome::Broken => return session.reset(),
    }
    if matches!(outcome, Outcome::Silent) {
        return reset(&claim.client);
    }
    if matches!(outcome, Outcome::NotHttp) || session.is_refused() {
        // Boxed: an idle connection would have room for it otherwise.
        let drained = Box::pin(drain(&claim.client));
        let _ = timeout(claim.means().patience.linger, drained).await;
    }
}

async fn requests(session: &Arc<Session>) -> Outcome {
    let client = &session.claim.client;
    let patience = session.claim.means().patience;
    let service = service_fn(|request: Request<Incoming>| {
        let session = Arc::clone(session);
        async move { session.answer(request).await }
    });
    let io = TokioIo::new(Stream(Arc::clone(client)));
    let connection = server(patience.idle).serve_connection(io, service).with_upgrades();
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return outcome(ended),
        () = broken(client) => return Outcome::Broken,
        () = sleep(patience.ask) => {}
    }
    if !session.has_begun() {
        return Outcome::Silent;
    }
    tokio::select! {
        ended = connection => outcome(ended),
        () = broken(client) => Outcome::Broken,
    }
}

fn server(idle: Duration) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(LONGEST_HEAD)
        .max_header_size(LONGEST_HEAD)
        .preserve_header_case(true)
        .auto_date_header(false)
        .half_close(true);
    server
}

fn outcome(ended: hyper::Result<()>) -> Outcome {
    match ended {
        Ok(()) => Outcome::Done,
        Err(error) if error.is_parse() => Outcome::NotHttp,
        Err(error) if error.is_timeout() => Outcome::Done,
        Err(_) => Outcome::Broken,
    }
}
