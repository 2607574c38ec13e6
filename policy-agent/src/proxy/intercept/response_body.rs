//! The body of a response from a server of a name with a rule.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use http_body_util::{Either, Full};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use crate::net::continue_gate::ContinueGate;

/// The body of a response to the sandbox: the server's, or the agent's own.
pub(super) type InterceptedResponseBody = Either<OriginBody, Full<Bytes>>;

/// The server's body. The body of the request may still be on its way.
pub(super) struct OriginBody {
    body: Incoming,
    _gate: Option<ContinueGate>,
}

impl OriginBody {
    pub(super) const fn new(body: Incoming, gate: Option<ContinueGate>) -> Self {
        Self { body, _gate: gate }
    }
}

impl Body for OriginBody {
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
