//! Executes commands. Policy changes that are independent of each other are written to disk,
//! attached and published together.

use std::collections::BTreeMap;

use super::{ApplyResults, Reconciler, stage::StagedChange, validate::ValidatedSandbox};
use crate::{
    agent::command::{AgentCommand, CommandReply, CommandResult},
    policy::SandboxId,
};

/// Changes that have slots and are not committed yet.
#[derive(Default)]
struct ChangeBatch {
    changes: Vec<StagedChange>,
    /// The index of the command that each change belongs to.
    command_indices: BTreeMap<SandboxId, usize>,
}

impl Reconciler {
    /// Executes commands. The results are the same as if they were executed one by one in this
    /// order.
    pub(crate) fn execute_batch(&mut self, commands: Vec<AgentCommand>) -> Vec<CommandResult> {
        if let Some(ids) = deleted_ids(&commands) {
            let deleted = self.delete_all(&ids).into_iter();
            return deleted.map(|result| result.map(|()| CommandReply::Done)).collect();
        }
        let mut replies = Vec::with_capacity(commands.len());
        let mut batch = ChangeBatch::default();
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
    fn can_join_batch(&self, command: &AgentCommand, batch: &ChangeBatch) -> bool {
        match command {
            AgentCommand::UpdateNetwork(id, _) => !batch.command_indices.contains_key(id.as_str()),
            AgentCommand::EditList { id, .. } | AgentCommand::SetMode { id, .. } => {
                !batch.command_indices.contains_key(id.as_str())
            }
            AgentCommand::Apply { specs, .. } => specs.iter().all(|spec| {
                self.endpoints.keeps_endpoint(spec)
                    && !batch.command_indices.contains_key(&spec.sandbox_id)
            }),
            _ => false,
        }
    }

    /// Adds a policy change to the batch, or executes any other command.
    fn execute(
        &mut self,
        command: AgentCommand,
        index: usize,
        batch: &mut ChangeBatch,
    ) -> CommandResult {
        match command {
            AgentCommand::Apply { specs, force } => {
                let validated = self.validate_specs(specs, force)?;
                return Ok(CommandReply::Applied(self.add_to_batch(validated, index, batch)));
            }
            AgentCommand::UpdateNetwork(id, update) => {
                let validated = vec![self.validate_update(&id, &update)?];
                return Ok(CommandReply::Applied(self.add_to_batch(validated, index, batch)));
            }
            AgentCommand::Validate { specs, force } => {
                self.validate_specs(specs, force)?;
            }
            AgentCommand::EditList { id, edit, dry_run } => {
                let (validated, change) = self.validate_edit(&id, &edit)?;
                let is_unchanged = self.is_unchanged(&validated);
                let changed = if dry_run || is_unchanged { vec![] } else { vec![validated] };
                let results = self.add_to_batch(changed, index, batch);
                return Ok(CommandReply::Edited { change, results });
            }
            AgentCommand::SetMode { id, mode, until } => {
                let validated = vec![self.validate_mode(&id, mode, until)?];
                return Ok(CommandReply::Applied(self.add_to_batch(validated, index, batch)));
            }
            AgentCommand::MoveContainer(id, endpoint) => {
                let mut moved = self.registry.require(id.as_str())?.spec();
                moved.move_to(endpoint);
                let validated = self.validate_specs(vec![moved], false)?;
                return Ok(CommandReply::Applied(self.add_to_batch(validated, index, batch)));
            }
            AgentCommand::RemoveExpiredEntries => self.remove_expired_entries(),
            AgentCommand::Create(request) => {
                return self.create(*request).map(CommandReply::Created);
            }
            AgentCommand::Delete(id) => self.delete(&id)?,
            AgentCommand::RenewLease(id, timeout) => {
                return self.renew_lease(&id, timeout).map(CommandReply::Renewed);
            }
            AgentCommand::IssueToken(id, lifetime) => {
                return self.issue_token(&id, lifetime).map(CommandReply::TokenIssued);
            }
            AgentCommand::RevokeTokens(id) => self.revoke_tokens(&id)?,
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
            AgentCommand::ReplacePlatformPolicy(platform_policy) => {
                let changed = self.replace_platform_policy(*platform_policy);
                return changed.map(CommandReply::PoliciesReplaced);
            }
        }
        Ok(CommandReply::Done)
    }

    /// Gives sandboxes their slots and adds them to the batch. Returns the errors of those that get
    /// none.
    fn add_to_batch(
        &mut self,
        validated: Vec<ValidatedSandbox>,
        index: usize,
        batch: &mut ChangeBatch,
    ) -> ApplyResults {
        let mut rejected = ApplyResults::new();
        for candidate in validated {
            let id = candidate.base_spec.sandbox_id.clone();
            match self.allocate(candidate, None) {
                Ok(change) => {
                    batch.command_indices.insert(id, index);
                    batch.changes.push(change);
                }
                Err(error) => rejected.push((id, Err(error))),
            }
        }
        rejected
    }

    fn commit_batch(&mut self, batch: &mut ChangeBatch, replies: &mut [CommandResult]) {
        let ChangeBatch { changes, command_indices } = std::mem::take(batch);
        let mut results = ApplyResults::new();
        self.commit(changes, &mut results);
        for (id, result) in results {
            let index = command_indices.get(&id);
            if let Some(Ok(reply)) = index.and_then(|index| replies.get_mut(*index))
                && let Some(results) = reply.results_mut()
            {
                results.push((id, result));
            }
        }
    }
}

/// Returns the sandboxes to delete, if these commands are deletions only.
fn deleted_ids(commands: &[AgentCommand]) -> Option<Vec<String>> {
    let id = |command: &AgentCommand| match command {
        AgentCommand::Delete(id) => Some(id.clone()),
        _ => None,
    };
    commands.iter().map(id).collect()
}
