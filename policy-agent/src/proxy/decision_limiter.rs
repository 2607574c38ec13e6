//! Turns: how many connections of one sandbox are on their way to a verdict at a time.
//!
//! Reading what a connection asks for, judging it and dialling are the expensive part. A sandbox that
//! opens a thousand connections at once would have a thousand tasks in front of everybody else's
//! next one. So the door takes the next connection when one of its own has been let out or refused;
//! the others wait in the kernel's queue of its listener.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Turns of one sandbox.
const MAX_CONCURRENT_DECISIONS: usize = 32;
/// How long a connection waits for a turn. Those that have one may wait for something themselves: for
/// a client that says nothing, or a server that does not answer. They must not hold up the others.
const MAX_PERMIT_WAIT: Duration = Duration::from_millis(2);

/// The turns of a sandbox.
#[derive(Debug)]
pub struct DecisionLimiter(Arc<Semaphore>);

/// A turn, which is over when this is dropped; `None`: the connection goes on without one.
pub type DecisionPermit = Option<OwnedSemaphorePermit>;

impl Default for DecisionLimiter {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_CONCURRENT_DECISIONS)))
    }
}

impl DecisionLimiter {
    /// The next turn.
    pub async fn acquire(&self) -> DecisionPermit {
        let free = Arc::clone(&self.0).try_acquire_owned();
        match free {
            Ok(permit) => Some(permit),
            Err(_) => {
                timeout(MAX_PERMIT_WAIT, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()
            }
        }
    }

    /// Turns that nobody has.
    #[cfg(test)]
    pub fn available(&self) -> usize {
        self.0.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn permits_are_limited_and_never_waited_for_long() {
        let limiter = DecisionLimiter::default();
        let mut taken = Vec::new();
        for _ in 0..MAX_CONCURRENT_DECISIONS {
            taken.push(limiter.acquire().await.expect("a turn"));
        }
        assert_eq!(limiter.available(), 0);
        assert!(limiter.acquire().await.is_none(), "after a pause");
        let mut waiting = Box::pin(limiter.acquire());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        taken.pop();
        assert!(waiting.await.is_some(), "as soon as there is one");
    }
}
