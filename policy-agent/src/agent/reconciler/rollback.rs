//! A change that is refused is taken back: what was in force stays, and stays on disk.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{Reconciler, publish, stage::StagedChange};
use crate::agent::{
    error::AgentError,
    sandbox::{EnforcementStatus, Sandbox, interface_for},
};

impl Reconciler {
    /// Takes a change back, as far as it got. Returns the error for whoever asked for it.
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
            // The new slot stays taken: the sandbox's gates may name it.
            Err(error) => {
                tracing::error!(sandbox = %id, "cannot undo a change that was refused: {error:#}");
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
            let detached = match change.sandbox.is_pinned_in(&self.orphaned_pins) {
                true => self.keep_orphan_gates(&change.sandbox),
                false => self.detach_sandbox(&change.sandbox),
            };
            return self.store.remove(change.id()).and(detached);
        };
        self.store.save(&previous.to_record())?;
        self.detach_previous(&change.sandbox, previous)?;
        if !change.has_new_slot() {
            self.republish_previous(previous)?;
        }
        let interface = interface_for(&previous.base_spec);
        let must_switch_back =
            change.has_new_slot() && previous.status == EnforcementStatus::Enforcing;
        if must_switch_back
            && !self.dataplane.is_attached(&previous.pin_name, previous.slot, &interface)?
        {
            self.dataplane.attach(&previous.pin_name, previous.slot, &interface)?;
        }
        Ok(())
    }

    /// Leaves an earlier agent's gates where they are: without them, everything would pass.
    fn keep_orphan_gates(&self, sandbox: &Sandbox) -> Result<()> {
        match self.dataplane.attached_slot(&sandbox.pin_name)? {
            Some(slot) if slot != sandbox.slot => Ok(()),
            _ => bail!("the gates of an earlier agent may name its slot by now"),
        }
    }

    /// Puts the old policy of a slot back in force, where the new one is already. If that fails, it
    /// is tried again at the next look.
    fn republish_previous(&self, previous: &Arc<Sandbox>) -> Result<()> {
        if previous.policy_id.is_some() {
            let change = StagedChange::for_republish(previous, previous.active_policy.compile());
            for (_, published) in
                publish::publish_all(&*self.dataplane, &self.attribution, vec![change])
            {
                if let Err(error) = published {
                    self.registry.insert(Sandbox { policy_id: None, ..Sandbox::clone(previous) });
                    return Err(error);
                }
            }
        }
        self.sync_proxy_policy(previous)
    }
}
