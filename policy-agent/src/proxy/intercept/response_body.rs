//! The body of a response from a server of a name with a rule.

use std::{
    future::poll_fn,
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
    /// What has arrived with the head. A short response is then written at once, in one TLS record.
    arrived: Option<Result<Frame<Bytes>, hyper::Error>>,
    body: Incoming,
    _gate: Option<ContinueGate>,
}

impl OriginBody {
    /// Takes what has already arrived, and does not wait for more.
    pub(super) async fn with_arrived(mut body: Incoming, gate: Option<ContinueGate>) -> Self {
        Self { arrived: arrived_frame(&mut body).await, body, _gate: gate }
    }
}

/// The first frame, if the connection's task has it. That task runs once before the second look.
async fn arrived_frame(body: &mut Incoming) -> Option<Result<Frame<Bytes>, hyper::Error>> {
    let mut has_looked = body.is_end_stream();
    poll_fn(|cx| match Pin::new(&mut *body).poll_frame(cx) {
        Poll::Ready(frame) => Poll::Ready(frame),
        Poll::Pending if has_looked => Poll::Ready(None),
        Poll::Pending => {
            has_looked = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

impl Body for OriginBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.arrived.take() {
            Some(arrived) => Poll::Ready(Some(arrived)),
            None => Pin::new(&mut self.body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.arrived.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let arrived = self.arrived.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        let (rest, arrived) = (self.body.size_hint(), arrived.map_or(0, |data| data.len() as u64));
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower() + arrived);
        if let Some(upper) = rest.upper() {
            hint.set_upper(upper + arrived);
        }
        hint
    }
}
