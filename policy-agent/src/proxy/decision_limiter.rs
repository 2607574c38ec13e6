//! Limits how many connections of one sandbox are being decided at the same time.
//!
//! Reading the requested name, deciding and dialing are the expensive part of a connection. A
//! sandbox that opens a thousand connections at once would otherwise put a thousand tasks ahead of
//! every other sandbox's next connection. So the accept loop takes the next connection once an
//! earlier one has been allowed or refused. The others wait in the kernel's accept queue.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Concurrent decisions per sandbox.
const MAX_CONCURRENT_DECISIONS: usize = 32;
/// How long a connection waits for a permit. The holders may be waiting themselves, for a silent
/// client or a slow server, and must not block the others.
const MAX_PERMIT_WAIT: Duration = Duration::from_millis(2);

/// The decision permits of one sandbox.
#[derive(Debug)]
pub(super) struct DecisionLimiter(Arc<Semaphore>);

/// A permit, released on drop. `None` means that the wait timed out and the connection goes on
/// without one.
pub(super) type DecisionPermit = Option<OwnedSemaphorePermit>;

impl Default for DecisionLimiter {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONCURRENT_DECISIONS)))
    }
}

impl DecisionLimiter {
    /// Waits for a permit, for a short time only.
    pub(super) async fn acquire(&self) -> DecisionPermit {
        let free = Arc::clone(&self.0).try_acquire_owned();
        match free {
            Ok(permit) => Some(permit),
            Err(_) => {
                timeout(MAX_PERMIT_WAIT, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()
            }
        }
    }

    /// The number of free permits.
    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.0.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_are_limited_and_never_waited_for_long() {
        let limiter = DecisionLimiter::default();
        let mut permits = Vec::new();
        for _ in 0..MAX_CONCURRENT_DECISIONS {
            permits.push(limiter.acquire().await.expect("a turn"));
        }
        assert_eq!(limiter.available(), 0);
        assert!(limiter.acquire().await.is_none(), "after a pause");
        let mut waiting = Box::pin(limiter.acquire());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        permits.pop();
        assert!(waiting.await.is_some(), "as soon as there is one");
    }
}
