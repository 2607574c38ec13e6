//! The body of a request, on its way to a server that may have to ask for it first.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::continue_gate::HeldBody;

/// The body, which may be held back for a while.
#[derive(Debug)]
pub(crate) struct GatedBody {
    body: Incoming,
    held: Option<HeldBody>,
}

impl GatedBody {
    /// Wraps a body.
    pub(crate) const fn new(body: Incoming) -> Self {
        Self { body, held: None }
    }

    /// Holds the body back until the server asks for it.
    pub(crate) fn hold(&mut self, held: HeldBody) {
        self.held = Some(held);
    }
}

impl Body for GatedBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(held) = &mut self.held {
            if !ready!(held.poll_outcome(cx)) {
                return Poll::Ready(Some(Err("the server did not ask for the body".into())));
            }
            self.held = None;
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
