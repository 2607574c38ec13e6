//! Executes commands. Policy changes that are independent of each other are staged together and
//! published at once.

use std::collections::BTreeMap;

use super::{ApplyResults, Reconciler, stage::StagedChange, validate::ValidatedSandbox};
use crate::{
    agent::command::{AgentCommand, CommandReply, CommandResult},
    policy::SandboxId,
};

/// Changes that are staged and not committed yet.
#[derive(Default)]
struct StagedBatch {
    staged: Vec<StagedChange>,
    /// The index of the command that each change belongs to.
    command_indices: BTreeMap<SandboxId, usize>,
}

impl Reconciler {
    /// Executes commands. The results are the same as if they were executed one by one in this
    /// order.
    pub(crate) fn execute_batch(&mut self, commands: Vec<AgentCommand>) -> Vec<CommandResult> {
        let mut replies = Vec::with_capacity(commands.len());
        let mut batch = StagedBatch::default();
        for (index, command) in commands.into_iter().enumerate() {
            if !self.can_join_batch(&command, &batch) {
                self.commit_batch(&mut batch, &mut replies);
            }
            replies.push(self.execute(command, index, &mut batch));
        }
        self.commit_batch(&mut batch, &mut replies);
        replies
    }

    /// Returns whether a command is independent of those in the batch. It must change other
    /// sandboxes, and must not move any to another interface, which the batch may have taken.
    fn can_join_batch(&self, command: &AgentCommand, batch: &StagedBatch) -> bool {
        match command {
            AgentCommand::UpdateNetwork(id, _) => !batch.command_indices.contains_key(id.as_str()),
            AgentCommand::Apply { specs, .. } => specs.iter().all(|spec| {
                self.endpoints.keeps_endpoint(spec)
                    && !batch.command_indices.contains_key(&spec.sandbox_id)
            }),
            _ => false,
        }
    }

    /// Stages a policy change, or executes any other command.
    fn execute(
        &mut self,
        command: AgentCommand,
        index: usize,
        batch: &mut StagedBatch,
    ) -> CommandResult {
        match command {
            AgentCommand::Apply { specs, force } => {
                let validated = self.validate_specs(specs, force)?;
                return Ok(CommandReply::Applied(self.stage_all(validated, index, batch)));
            }
            AgentCommand::UpdateNetwork(id, update) => {
                let validated = vec![self.validate_update(&id, &update)?];
                return Ok(CommandReply::Applied(self.stage_all(validated, index, batch)));
            }
            AgentCommand::Create(request) => {
                return self.create(*request).map(CommandReply::Created);
            }
            AgentCommand::Delete(id) => self.delete(&id)?,
            AgentCommand::RenewLease(id, timeout) => {
                return self.renew_lease(&id, timeout).map(CommandReply::Renewed);
            }
            AgentCommand::DeleteExpired => {
                return Ok(CommandReply::StillExpired(self.delete_expired()));
            }
            AgentCommand::ReconcileSandboxes(ids) => self.reconcile_sandboxes(&ids),
            AgentCommand::BlockIdleInterfaces(interfaces) => {
                self.block_idle_interfaces(&interfaces);
            }
            AgentCommand::RefreshHostAddresses(namespaces) => {
                self.refresh_host_addresses(&namespaces);
            }
            AgentCommand::PruneAndRepin => self.prune_and_repin(),
        }
        Ok(CommandReply::Done)
    }

    /// Stages sandboxes and adds them to the batch. Returns the errors of those that could not be
    /// staged.
    fn stage_all(
        &mut self,
        validated: Vec<ValidatedSandbox>,
        index: usize,
        batch: &mut StagedBatch,
    ) -> ApplyResults {
        let mut rejected = ApplyResults::new();
        for candidate in validated {
            let id = candidate.base_spec.sandbox_id.clone();
            match self.stage(candidate, None) {
                Ok(change) => {
                    batch.command_indices.insert(id, index);
                    batch.staged.push(change);
                }
                Err(error) => rejected.push((id, Err(error))),
            }
        }
        rejected
    }

    fn commit_batch(&mut self, batch: &mut StagedBatch, replies: &mut [CommandResult]) {
        let StagedBatch { staged, command_indices } = std::mem::take(batch);
        let mut results = ApplyResults::new();
        self.commit(staged, &mut results);
        for (id, result) in results {
            let index = command_indices.get(&id);
            if let Some(Ok(CommandReply::Applied(reply))) =
                index.and_then(|index| replies.get_mut(*index))
            {
                reply.push((id, result));
            }
        }
    }
}
