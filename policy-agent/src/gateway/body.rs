//! The body of an answer: the service's, or the gateway's own words.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;

/// What a client gets.
pub type Answer = Either<Held, Full<Bytes>>;

/// A service's body, which takes one of the sandbox's places as long as it lasts.
#[derive(Debug)]
pub struct Held {
    body: Incoming,
    _place: OwnedSemaphorePermit,
}

impl Held {
    /// A body in this place.
    pub fn new(body: Incoming, place: OwnedSemaphorePermit) -> Self {
        Self { body, _place: place }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
