//! Response bodies: a service's, or the gateway's own.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    access_log::{AccessLogEntry, RequestOutcome},
    connection_pool::{BackendConnection, ConnectionPool, PoolKey},
    flow_control::{PacedBody, WriteBacklog},
    http2_pool::Http2Stream,
    request_body::BodyProgress,
};
use crate::net::continue_gate::ContinueGate;

/// The body of a response to a client.
pub(super) type GatewayResponseBody = Either<BackendResponseBody, Full<Bytes>>;

/// The connection of a response. It returns to the pool once the body has been read.
#[derive(Debug)]
pub(super) struct PooledConnection {
    /// The pool it returns to.
    pub pool: Arc<ConnectionPool>,
    /// Its key in the pool.
    pub key: PoolKey,
    /// The connection.
    pub connection: BackendConnection,
    /// Set if the service had to ask for the body of the request.
    pub gate: Option<ContinueGate>,
    /// Set if the request has a body.
    pub request_body: Option<BodyProgress>,
}

impl PooledConnection {
    /// Whether the service answered without asking for the body of the request. Then neither side
    /// can use its connection for another request.
    pub(super) fn is_body_unwanted(&self) -> bool {
        self.gate.as_ref().is_some_and(|gate| !gate.is_open())
    }

    /// Whether another request can follow: the service may have answered before it had the whole
    /// request, the rest of which may never come.
    fn is_reusable(&self) -> bool {
        let is_sending = self.request_body.as_ref().is_some_and(BodyProgress::is_sending);
        !is_sending && !self.is_body_unwanted()
    }
}

/// What carries a response.
#[derive(Debug)]
pub(super) enum ResponseConnection {
    /// A connection of its own.
    Http1(PooledConnection),
    /// A stream of a shared connection.
    Http2(#[expect(dead_code, reason = "it counts until it is dropped")] Http2Stream),
}

/// A service's body. It holds one of the sandbox's connection permits until it is dropped.
#[derive(Debug)]
pub(super) struct BackendResponseBody {
    body: PacedBody<Incoming>,
    has_ended: bool,
    connection: Option<ResponseConnection>,
    log_entry: AccessLogEntry,
    _permit: OwnedSemaphorePermit,
}

impl BackendResponseBody {
    /// Wraps a body together with its connection and permit.
    pub(super) fn new(
        body: Incoming,
        connection: ResponseConnection,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let (body, connection) = (PacedBody::new(body), Some(connection));
        Self {
            body,
            has_ended: false,
            connection,
            log_entry: AccessLogEntry::default(),
            _permit: permit,
        }
    }

    /// Logs the request when the body has ended.
    pub(super) fn set_log_entry(&mut self, log_entry: AccessLogEntry) {
        self.log_entry = log_entry;
    }

    /// Sets the backlog of the client connection, as soon as that is known.
    pub(super) fn set_backlog(&mut self, backlog: &WriteBacklog) {
        self.body.set_backlog(backlog);
    }
}

impl Body for BackendResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        self.has_ended |= match &frame {
            None => true,
            Some(Ok(frame)) => frame.is_trailers(),
            Some(Err(_)) => false,
        };
        match &frame {
            Some(Ok(frame)) => {
                let sent = frame.data_ref().map_or(0, |data| data.len() as u64);
                self.log_entry.add_sent(sent);
            }
            Some(Err(_)) => self.log_entry.set_outcome(RequestOutcome::ServiceBrokeOff),
            None => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for BackendResponseBody {
    fn drop(&mut self) {
        let has_ended = self.has_ended || self.body.is_end_stream();
        if has_ended {
            self.log_entry.set_outcome(RequestOutcome::Complete);
        }
        if let Some(ResponseConnection::Http1(pooled)) = self.connection.take()
            && has_ended
            && pooled.is_reusable()
        {
            pooled.pool.put(pooled.key, pooled.connection);
        }
    }
}
