//! Rolls back a failed change: the previous policy stays in force and on disk.

use std::sync::Arc;

use anyhow::Result;

use super::{Reconciler, stage::StagedChange};
use crate::agent::{
    error::AgentError,
    sandbox::{EnforcementStatus, Sandbox},
};

impl Reconciler {
    /// Undoes a change as far as it was made. Returns the error for the caller.
    pub(crate) fn roll_back(
        &mut self,
        change: StagedChange,
        failure: &'static str,
        cause: anyhow::Error,
    ) -> AgentError {
        let id = change.id().clone();
        match self.restore_previous(&change) {
            Ok(()) if change.has_new_slot() => self.release_slot(change.sandbox.slot),
            Ok(()) => {}
            // The new slot stays allocated: the gates of the sandbox may still point to it.
            Err(error) => {
                tracing::error!(sandbox = %id, "cannot roll back a change: {error:#}");
            }
        }
        let consequence = match change.previous {
            Some(_) => "the policy in force stays",
            None => "it was not created",
        };
        tracing::warn!(sandbox = %id, "{failure}: {cause:#}; {consequence}");
        AgentError::Failed { sandbox: id, failure, consequence, cause }
    }

    fn restore_previous(&self, change: &StagedChange) -> Result<()> {
        let Some(previous) = &change.previous else {
            let detached = match self.attachments.orphans.has_gates_of(&change.sandbox) {
                true => self.attachments.orphans.keep_gates_of(&change.sandbox),
                false => self.interface_pool.detach_sandbox(&change.sandbox, &self.attachments),
            };
            return self.store.remove(change.id()).and(detached);
        };
        self.store.save(&previous.to_record())?;
        self.detach_previous(&change.sandbox, previous)?;
        if !change.has_new_slot() {
            self.republish_previous(previous)?;
        }
        if change.has_new_slot() && previous.status == EnforcementStatus::Enforcing {
            self.attachments.switch_back(previous)?;
        }
        Ok(())
    }

    /// Puts the previous policy of a slot back in force if the new one is already published. If
    /// that fails, the next scan retries.
    fn republish_previous(&self, previous: &Arc<Sandbox>) -> Result<()> {
        if previous.policy_id.is_some() {
            let change = StagedChange::for_republish(previous, previous.active_policy.compile());
            for (_, published) in self.publisher.publish_all(vec![change]) {
                if let Err(error) = published {
                    self.registry.insert(Sandbox { policy_id: None, ..Sandbox::clone(previous) });
                    return Err(error);
                }
            }
        }
        self.redirects.sync(previous)
    }
}
