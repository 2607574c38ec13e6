//! The body of a request to a server of a name with a rule.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use hyper::{
    Request,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    header::HeaderName,
};

use super::rule_headers::remove_fields;
use crate::net::{continue_gate::ContinueGate, gated_body::GatedBody};

/// The sandbox's body. Its trailers do not contain the headers of the rule: a server may merge them
/// into the others.
pub(super) struct InterceptedRequestBody {
    body: GatedBody,
    reserved: Arc<[HeaderName]>,
}

impl InterceptedRequestBody {
    /// Wraps the body of a request. Without the gate, the body is not held back.
    pub(super) fn wrap(
        request: Request<Incoming>,
        reserved: Arc<[HeaderName]>,
    ) -> (Request<Self>, Option<ContinueGate>) {
        let mut request = request.map(|body| Self { body: GatedBody::new(body), reserved });
        if request.body().is_end_stream() {
            return (request, None);
        }
        let Some((gate, held)) = ContinueGate::for_request(&mut request) else {
            return (request, None);
        };
        request.body_mut().body.hold(held);
        (request, Some(gate))
    }
}

impl Body for InterceptedRequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| match frame.into_trailers() {
                Ok(mut trailers) => {
                    remove_fields(&mut trailers, self.reserved.iter());
                    Frame::trailers(trailers)
                }
                Err(data) => data,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
