//! Commands that wait for the reconciler. Policy changes are executed in batches, and so are
//! deletions, so that they share what a batch does once.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    command::{AgentCommand, CommandResult},
    reconciler::Reconciler,
};

/// Maximum number of commands in a batch.
const MAX_BATCH: usize = 64;

type QueuedCommand = (AgentCommand, oneshot::Sender<CommandResult>);

/// Commands in order of arrival.
#[derive(Default)]
pub(crate) struct CommandQueue(Mutex<VecDeque<QueuedCommand>>);

impl CommandQueue {
    /// Adds a command. Its reply arrives at the returned receiver.
    pub(crate) fn push(&self, command: AgentCommand) -> oneshot::Receiver<CommandResult> {
        let (reply, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((command, reply));
        receiver
    }

    /// Executes the first command together with others that can share its batch.
    pub(crate) fn run_batch(&self, reconciler: &mut Reconciler) {
        let (commands, replies): (Vec<_>, Vec<_>) = self.take_batch().into_iter().unzip();
        for (reply, result) in replies.into_iter().zip(reconciler.execute_batch(commands)) {
            let _ = reply.send(result); // the caller may be gone
        }
    }

    /// Drops the commands of callers that are gone, and takes the next batch.
    fn take_batch(&self) -> Vec<QueuedCommand> {
        let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queued.retain(|(_, reply)| !reply.is_closed());
        let mut batch: Vec<QueuedCommand> = queued.pop_front().into_iter().collect();
        let kind = batch.first().and_then(|(command, _)| command.batch_kind());
        if kind.is_none() {
            return batch;
        }
        let mut remaining = VecDeque::with_capacity(queued.len());
        for (command, reply) in queued.drain(..) {
            if command.batch_kind() == kind && batch.len() < MAX_BATCH {
                batch.push((command, reply));
            } else {
                remaining.push_back((command, reply));
            }
        }
        *queued = remaining;
        batch
    }
}
