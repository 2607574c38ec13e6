//! Committing: stages changes, publishes them and activates their slots.

use std::sync::Arc;

use anyhow::Result;

use super::{
    ApplyResults, Reconciler, single_result,
    stage::{REDIRECT_FAILED, StagedChange},
};
use crate::{
    agent::{error::AgentError, sandbox::Sandbox},
    dataplane::{PolicyId, Slot},
};

impl Reconciler {
    /// Like [`Self::commit`], for a single change.
    pub(crate) fn commit_one(&mut self, change: StagedChange) -> Result<(), AgentError> {
        let mut results = ApplyResults::new();
        self.commit(vec![change], &mut results);
        single_result(results)
    }

    /// Stages and publishes changes, and activates each or rolls it back.
    pub(crate) fn commit(&mut self, changes: Vec<StagedChange>, results: &mut ApplyResults) {
        if changes.is_empty() {
            return;
        }
        let dataplane = Arc::clone(&self.dataplane);
        let attaches = changes.iter().any(StagedChange::has_new_slot);
        let _expedited = attaches.then(|| dataplane.expedite_attaching());
        let staged = self.stage_all(changes, results);
        for (change, published) in self.publisher.publish_all(staged) {
            let id = change.id().clone();
            let result = match published {
                Ok(policy) => self.activate(change, policy),
                Err(cause) => Err(self.roll_back(change, "cannot publish its policy", cause)),
            };
            results.push((id, result));
        }
    }

    /// Makes the slot the sandbox's, now that the policy is in force there.
    fn activate(&mut self, change: StagedChange, policy_id: PolicyId) -> Result<(), AgentError> {
        let mut sandbox = Sandbox { policy_id: Some(policy_id), ..change.sandbox.clone() };
        let redirects = &self.redirects;
        let attached = match &change.previous {
            None if sandbox.attach_point.is_some() => Ok(()),
            None => self.attachments.attach_sandbox(&mut sandbox, redirects),
            Some(_) if change.has_new_slot() => {
                self.attachments.switch_slot(&mut sandbox, redirects)
            }
            // Scans and link events notice if it is attached no longer.
            Some(_) if sandbox.is_known_attached() => Ok(()),
            Some(_) => self.attachments.switch_slot(&mut sandbox, redirects),
        };
        if let Err(cause) = attached {
            return Err(self.roll_back(change, "cannot attach it to its interface", cause));
        }
        if let Err(cause) = self.redirects.sync(&sandbox) {
            return Err(self.roll_back(change, REDIRECT_FAILED, cause));
        }
        if let Some(previous) = change.previous.as_ref().filter(|_| change.has_new_slot()) {
            self.leave_previous_slot(previous, &mut sandbox);
        }
        tracing::info!(sandbox = %sandbox.id(), policy = policy_id.0, "policy in force");
        sandbox.log_observation();
        self.attachments.orphans.detach_gates_of(&sandbox);
        self.registry.insert(sandbox);
        Ok(())
    }

    fn leave_previous_slot(&mut self, previous: &Sandbox, sandbox: &mut Sandbox) {
        sandbox.previous_counters = Arc::new(self.slots.accumulated_counters(previous));
        match self.detach_previous(previous, sandbox) {
            Ok(()) => self.release_slot(previous.slot),
            // The slot stays allocated: the gates may still point to it.
            Err(error) => {
                tracing::error!(sandbox = %previous.id(), "cannot leave its old interface: {error:#}");
            }
        }
    }

    /// Detaches a sandbox from its previous interface, unless its gates are the same as before.
    pub(crate) fn detach_previous(&self, previous: &Sandbox, new: &Sandbox) -> Result<()> {
        if previous.pin_name == new.pin_name {
            return Ok(());
        }
        self.interface_pool.detach_sandbox(previous, &self.attachments)
    }

    /// Closes the proxy listeners of a slot and releases it.
    pub(crate) fn release_slot(&mut self, slot: Slot) {
        self.redirects.close(slot);
        self.slots.release(slot);
    }
}
