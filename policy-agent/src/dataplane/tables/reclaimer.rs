//! Frees tables that are no longer in force, once no program reads them any more. A thread of its
//! own waits for that, so that no change of a policy does.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use anyhow::{Context as _, Result};

use super::{grace_period::GracePeriod, policy_tables::PublishedBlock};

/// Receives blocks that no slot refers to any more.
pub(crate) struct Reclaimer {
    retired: Sender<PublishedBlock>,
    pending: Arc<PendingBlocks>,
}

/// The number of blocks that are retired, but not freed yet.
#[derive(Default)]
struct PendingBlocks {
    count: Mutex<usize>,
    changed: Condvar,
}

impl Reclaimer {
    /// Starts the thread. It calls `free` with blocks that no program can still read.
    pub(crate) fn start(free: impl Fn(Vec<PublishedBlock>) + Send + 'static) -> Result<Self> {
        let grace_period = GracePeriod::new()?;
        let (retired, receiver) = mpsc::channel();
        let pending = Arc::new(PendingBlocks::default());
        let freed = Arc::clone(&pending);
        thread::Builder::new()
            .name("policy-tables".to_owned())
            .spawn(move || run(&receiver, &grace_period, &freed, free))
            .context("cannot start a thread")?;
        Ok(Self { retired, pending })
    }

    /// Frees a block after a grace period.
    pub(crate) fn retire(&self, block: PublishedBlock) {
        *self.pending.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        // If the thread has panicked, the block stays allocated.
        let _ = self.retired.send(block);
    }

    /// Waits until a retired block is freed. Returns `false` if there is none.
    pub(crate) fn wait_for_one(&self) -> bool {
        let count = self.pending.count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *count;
        if before == 0 {
            return false;
        }
        let waited = self.pending.changed.wait_while(count, |count| *count >= before);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        true
    }
}

fn run(
    retired: &Receiver<PublishedBlock>,
    grace_period: &GracePeriod,
    pending: &PendingBlocks,
    free: impl Fn(Vec<PublishedBlock>),
) {
    while let Ok(first) = retired.recv() {
        let mut blocks = vec![first];
        blocks.extend(retired.try_iter());
        let count = blocks.len();
        match grace_period.wait() {
            Ok(()) => free(blocks),
            // They stay allocated: a program might still read them.
            Err(error) => tracing::error!("cannot free {count} tables: {error:#}"),
        }
        *pending.count.lock().unwrap_or_else(PoisonError::into_inner) -= count;
        pending.changed.notify_all();
    }
}
