//! Changes that wait for their turn, and then share it: what the kernel makes each wait for, it makes
//! all of them wait for once.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

use super::{
    error::AgentError,
    reconciler::{ApplyResults, Reconciler, stage::StagedChange, validate::ValidatedSandbox},
};
use crate::policy::{NetworkConfig, SandboxId, SandboxSpec};

/// How many requests share a turn.
const MAX_BATCH: usize = 64;

/// What somebody asks to be changed.
pub enum AgentCommand {
    /// Create or replace sandboxes, all of which are checked before the first is changed.
    Apply {
        /// The sandboxes.
        specs: Vec<SandboxSpec>,
        /// Whether they may be on an interface that the host needs for itself.
        force: bool,
    },
    /// Replace the egress fields of a sandbox.
    UpdateNetwork(String, Box<NetworkConfig>),
}

type CommandResult = Result<ApplyResults, AgentError>;

/// Requests, in the order in which they came.
#[derive(Default)]
pub struct CommandQueue(Mutex<VecDeque<(AgentCommand, oneshot::Sender<CommandResult>)>>);

impl CommandQueue {
    /// Adds a request.
    pub fn push(&self, command: AgentCommand) -> oneshot::Receiver<CommandResult> {
        let (reply, receiver) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back((command, reply));
        receiver
    }

    /// Does what has been asked for, if it has not been done in somebody else's turn. Of who has gone
    /// before it began nothing is done.
    pub fn run_batch(&self, reconciler: &mut Reconciler) {
        let (requests, replies): (Vec<_>, Vec<_>) = {
            let mut queued = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            queued.retain(|(_, reply)| !reply.is_closed());
            let count = queued.len().min(MAX_BATCH);
            queued.drain(..count).unzip()
        };
        for (reply, result) in replies.into_iter().zip(reconciler.execute_batch(requests)) {
            let _ = reply.send(result); // they may have gone by now
        }
    }
}

/// Changes that are made ready and not yet in force.
#[derive(Default)]
struct StagedBatch {
    staged: Vec<StagedChange>,
    /// The number of the request that each is of.
    command_indices: BTreeMap<SandboxId, usize>,
}

impl Reconciler {
    /// Does what is asked for, in this order as far as anybody can tell.
    pub(super) fn execute_batch(&mut self, requests: Vec<AgentCommand>) -> Vec<CommandResult> {
        let mut replies = Vec::with_capacity(requests.len());
        let mut batch = StagedBatch::default();
        for (index, command) in requests.into_iter().enumerate() {
            if !self.can_join_batch(&command, &batch) {
                self.commit_batch(&mut batch, &mut replies);
            }
            replies.push(self.validate_command(command).map(|candidates| {
                let mut rejected = ApplyResults::new();
                for validated in candidates {
                    let id = validated.base_spec.sandbox_id.clone();
                    match self.stage(validated, None) {
                        Ok(change) => {
                            batch.command_indices.insert(id, index);
                            batch.staged.push(change);
                        }
                        Err(error) => rejected.push((id, Err(error))),
                    }
                }
                rejected
            }));
        }
        self.commit_batch(&mut batch, &mut replies);
        replies
    }

    /// Whether a request needs to know nothing of what is in the batch: it is about other sandboxes,
    /// and none that moves to an interface, which may be taken by then.
    fn can_join_batch(&self, command: &AgentCommand, batch: &StagedBatch) -> bool {
        match command {
            AgentCommand::UpdateNetwork(id, _) => !batch.command_indices.contains_key(id.as_str()),
            AgentCommand::Apply { specs, .. } => specs.iter().all(|spec| {
                let known = self.registry.get(&spec.sandbox_id);
                let stays = known.is_some_and(|sandbox| sandbox.has_same_endpoint(spec));
                stays && !batch.command_indices.contains_key(&spec.sandbox_id)
            }),
        }
    }

    fn validate_command(
        &mut self,
        command: AgentCommand,
    ) -> Result<Vec<ValidatedSandbox>, AgentError> {
        match command {
            AgentCommand::Apply { specs, force } => self.validate_specs(specs, force),
            AgentCommand::UpdateNetwork(id, update) => {
                Ok(vec![self.validate_update(&id, &update)?])
            }
        }
    }

    fn commit_batch(&mut self, batch: &mut StagedBatch, replies: &mut [CommandResult]) {
        let StagedBatch { staged, command_indices: commands } = std::mem::take(batch);
        let mut results = ApplyResults::new();
        self.commit(staged, &mut results);
        for (id, result) in results {
            let index = commands.get(&id);
            if let Some(Ok(reply)) = index.and_then(|number| replies.get_mut(*number)) {
                reply.push((id, result));
            }
        }
    }
}
