//! The body of a client's request, on its way to a service.

use std::{
    error::Error,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::access_log::ByteCount;
use crate::net::{continue_gate::HeldBody, gated_body::GatedBody};

/// The body, whose bytes are counted.
#[derive(Debug)]
pub(super) struct ClientRequestBody {
    body: GatedBody,
    received: ByteCount,
    in_progress: Arc<()>,
}

/// Tells whether a body is still being sent.
#[derive(Debug)]
pub(super) struct BodyProgress(Weak<()>);

impl BodyProgress {
    /// Whether the body has neither been sent nor given up.
    pub(super) fn is_sending(&self) -> bool {
        self.0.strong_count() > 0
    }
}

impl ClientRequestBody {
    /// Wraps a body, and counts its bytes.
    pub(super) fn new(body: Incoming, received: ByteCount) -> Self {
        Self { body: GatedBody::new(body), received, in_progress: Arc::default() }
    }

    /// The progress of the body, for whoever has passed it on.
    pub(super) fn progress(&self) -> BodyProgress {
        BodyProgress(Arc::downgrade(&self.in_progress))
    }

    /// Holds the body back until the service asks for it.
    pub(super) fn hold(&mut self, held: HeldBody) {
        self.body.hold(held);
    }
}

impl Body for ClientRequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref()) {
            self.received.add(data.len());
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
