//! The body of an answer: the service's, or the gateway's own words.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    connection_pool::{BackendConnection, ConnectionPool, PoolKey},
    flow_control::{PacedBody, WriteBacklog},
};

/// What a client gets.
pub type GatewayResponseBody = Either<BackendResponseBody, Full<Bytes>>;

/// The connection that an answer comes from, which can be used again when that has been read.
#[derive(Debug)]
pub struct PooledConnection {
    /// Where it waits for the next request.
    pub pool: Arc<ConnectionPool>,
    /// Where it leads.
    pub key: PoolKey,
    /// The connection.
    pub connection: BackendConnection,
}

/// A service's body, which takes one of the sandbox's places as long as it lasts.
#[derive(Debug)]
pub struct BackendResponseBody {
    body: PacedBody<Incoming>,
    has_ended: bool,
    pooled: Option<PooledConnection>,
    _permit: OwnedSemaphorePermit,
}

impl BackendResponseBody {
    /// A body in this place.
    pub fn new(body: Incoming, pooled: PooledConnection, permit: OwnedSemaphorePermit) -> Self {
        Self { body: PacedBody::new(body), has_ended: false, pooled: Some(pooled), _permit: permit }
    }

    /// Says which connection it goes to, where that is known.
    pub fn set_backlog(&mut self, backlog: &WriteBacklog) {
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
        if let Some(pooled) = self.pooled.take()
            && (self.has_ended || self.body.is_end_stream())
        {
            pooled.pool.put(pooled.key, pooled.connection);
        }
    }
}
