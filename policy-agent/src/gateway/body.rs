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
    flow::{Backlog, Paced},
    pool::{Connection, Key, Pool},
};

/// What a client gets.
pub type Answer = Either<Held, Full<Bytes>>;

/// The connection that an answer comes from, which can be used again when that has been read.
#[derive(Debug)]
pub struct Source {
    /// Where it waits for the next request.
    pub pool: Arc<Pool>,
    /// Where it leads.
    pub key: Key,
    /// The connection.
    pub connection: Connection,
}

/// A service's body, which takes one of the sandbox's places as long as it lasts.
#[derive(Debug)]
pub struct Held {
    body: Paced<Incoming>,
    has_ended: bool,
    source: Option<Source>,
    _place: OwnedSemaphorePermit,
}

impl Held {
    /// A body in this place.
    pub fn new(body: Incoming, source: Source, place: OwnedSemaphorePermit) -> Self {
        Self { body: Paced::new(body), has_ended: false, source: Some(source), _place: place }
    }

    /// Says which connection it goes to, where that is known.
    pub fn goes_to(&mut self, backlog: &Backlog) {
        self.body.goes_to(backlog);
    }
}

impl Body for Held {
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

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(source) = self.source.take()
            && (self.has_ended || self.body.is_end_stream())
        {
            source.pool.put(source.key, source.connection);
        }
    }
}
