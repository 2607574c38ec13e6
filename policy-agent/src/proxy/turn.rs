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
const TURNS: usize = 32;
/// How long a connection waits for a turn. Those that have one may wait for something themselves: for
/// a client that says nothing, or a server that does not answer. They must not hold up the others.
const PAUSE: Duration = Duration::from_millis(2);

/// The turns of a sandbox.
#[derive(Debug)]
pub struct Turns(Arc<Semaphore>);

/// A turn, which is over when this is dropped; `None`: the connection goes on without one.
pub type Turn = Option<OwnedSemaphorePermit>;

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(TURNS)))
    }
}

impl Turns {
    /// The next turn.
    pub async fn next(&self) -> Turn {
        let free = Arc::clone(&self.0).try_acquire_owned();
        match free {
            Ok(turn) => Some(turn),
            Err(_) => timeout(PAUSE, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok(),
        }
    }

    /// Turns that nobody has.
    #[cfg(test)]
    pub fn free(&self) -> usize {
        self.0.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn there_are_so_many_and_none_is_waited_for_long() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..TURNS {
            taken.push(turns.next().await.expect("a turn"));
        }
        assert_eq!(turns.free(), 0);
        assert!(turns.next().await.is_none(), "after a pause");
        let mut waiting = Box::pin(turns.next());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        taken.pop();
        assert!(waiting.await.is_some(), "as soon as there is one");
    }
}
