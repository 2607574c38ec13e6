//! The body of a client's request, on its way to a service.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::{access_log::ByteCount, continue_gate::HeldBody};

/// The body, which may be held back for a while.
#[derive(Debug)]
pub(super) struct ClientRequestBody {
    body: Incoming,
    held: Option<HeldBody>,
    received: ByteCount,
}

impl ClientRequestBody {
    /// Wraps a body, and counts its bytes.
    pub(super) const fn new(body: Incoming, received: ByteCount) -> Self {
        Self { body, held: None, received }
    }

    /// Holds the body back until the service asks for it.
    pub(super) fn hold(&mut self, held: HeldBody) {
        self.held = Some(held);
    }
}

impl Body for ClientRequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(held) = &mut self.held {
            if !ready!(held.poll_outcome(cx)) {
                return Poll::Ready(Some(Err("the service did not ask for the body".into())));
            }
            self.held = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.received.add(data.len());
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
