//! Holds back the body of a request with `Expect: 100-continue` until the service asks for it
//! (RFC 9110, 10.1.1). The HTTP library sends the client a 100 when the body is first read.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use hyper::{Request, StatusCode, header};
use tokio::time::{Sleep, sleep};

/// How long a service has to ask for the body or to answer. Services that do not know the
/// expectation wait for the body.
const CONTINUE_TIMEOUT: Duration = Duration::from_secs(1);

const WAITING: u8 = 0;
const OPEN: u8 = 1;
const ABANDONED: u8 = 2;

#[derive(Debug, Default)]
struct GateState {
    outcome: AtomicU8,
    waker: AtomicWaker,
}

impl GateState {
    /// Decides, unless that has happened already.
    fn resolve(&self, outcome: u8) {
        let previous =
            self.outcome.compare_exchange(WAITING, outcome, Ordering::AcqRel, Ordering::Acquire);
        if previous.is_ok() {
            self.waker.wake();
        }
    }
}

/// The request's side of the gate. If it is dropped before the service has asked for the body, the
/// body is never sent.
#[derive(Debug)]
pub(crate) struct ContinueGate(Arc<GateState>);

impl ContinueGate {
    /// Closes the gate for a request with the expectation. The second value is for its body.
    pub(crate) fn for_request<B>(request: &mut Request<B>) -> Option<(Self, HeldBody)> {
        if !request.headers().contains_key(header::EXPECT) {
            return None;
        }
        let state = Arc::<GateState>::default();
        let timeout = Box::pin(sleep(CONTINUE_TIMEOUT));
        let held = HeldBody { state: Arc::clone(&state), timeout };
        let asked = Arc::clone(&state);
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                asked.resolve(OPEN);
            }
        });
        Some((Self(state), held))
    }

    /// Whether the body may be sent.
    pub(crate) fn is_open(&self) -> bool {
        self.0.outcome.load(Ordering::Acquire) == OPEN
    }
}

impl Drop for ContinueGate {
    fn drop(&mut self) {
        self.0.resolve(ABANDONED);
    }
}

/// The body's side of the gate.
#[derive(Debug)]
pub(crate) struct HeldBody {
    state: Arc<GateState>,
    timeout: Pin<Box<Sleep>>,
}

impl HeldBody {
    /// Waits for the outcome: whether the body may be sent.
    pub(crate) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        self.state.waker.register(cx.waker());
        if self.timeout.as_mut().poll(cx).is_ready() {
            self.state.resolve(OPEN);
        }
        match self.state.outcome.load(Ordering::Acquire) {
            WAITING => Poll::Pending,
            outcome => Poll::Ready(outcome == OPEN),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    fn gate(timeout: Duration) -> (ContinueGate, HeldBody) {
        let state = Arc::<GateState>::default();
        let timeout = Box::pin(sleep(timeout));
        (ContinueGate(Arc::clone(&state)), HeldBody { state, timeout })
    }

    #[tokio::test]
    async fn a_service_that_says_nothing_gets_the_body_after_a_while() {
        let (gate, mut held) = gate(Duration::ZERO);
        assert!(!gate.is_open());
        assert!(poll_fn(|cx| held.poll_outcome(cx)).await);
        assert!(gate.is_open());
    }

    #[tokio::test]
    async fn a_request_that_ends_first_abandons_the_body() {
        let (gate, mut held) = gate(Duration::from_secs(3600));
        let dropping = async { drop(gate) };
        let waiting = poll_fn(|cx| held.poll_outcome(cx));
        assert!(!tokio::join!(waiting, dropping).0);
    }
}
