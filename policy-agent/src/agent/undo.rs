//! A change that is refused is taken back: what was in force stays, and stays on disk.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{
    change::Change,
    error::Error,
    publish,
    reconciler::Reconciler,
    sandbox::{Sandbox, Status, interface},
};

impl Reconciler {
    /// Takes a change back, as far as it got. Returns the error for whoever asked for it.
    pub(super) fn undo(
        &mut self,
        change: Change,
        task: &'static str,
        cause: anyhow::Error,
    ) -> Error {
        let id = change.id().clone();
        match self.restore(&change) {
            Ok(()) if change.has_new_slot() => self.release(change.sandbox.slot),
            Ok(()) => {}
            // The new slot stays taken: the sandbox's gates may name it.
            Err(error) => {
                tracing::error!(sandbox = %id, "cannot undo a change that was refused: {error:#}");
            }
        }
        let kept = match change.old {
            Some(_) => "the policy in force stays",
            None => "it was not created",
        };
        tracing::warn!(sandbox = %id, "{task}: {cause:#}; {kept}");
        Error::Failed { sandbox: id, task, kept, cause }
    }

    fn restore(&self, change: &Change) -> Result<()> {
        let Some(old) = &change.old else {
            let left = match change.sandbox.has_gates_in(&self.orphans) {
                true => self.spare(&change.sandbox),
                false => self.leave(&change.sandbox),
            };
            return self.store.remove(change.id()).and(left);
        };
        self.store.save(&old.entry())?;
        self.leave_for(&change.sandbox, old)?;
        if !change.has_new_slot() {
            self.reinstate(old)?;
        }
        let wanted = interface(&old.head);
        let moved = change.has_new_slot() && old.status == Status::Enforcing;
        if moved && !self.kernel.is_attached(&old.gates, old.slot, &wanted)? {
            self.kernel.attach(&old.gates, old.slot, &wanted)?;
        }
        Ok(())
    }

    /// Leaves an earlier agent's gates where they are: without them, everything would pass.
    fn spare(&self, sandbox: &Sandbox) -> Result<()> {
        match self.kernel.attached_slot(&sandbox.gates)? {
            Some(slot) if slot != sandbox.slot => Ok(()),
            _ => bail!("the gates of an earlier agent may name its slot by now"),
        }
    }

    /// Puts the old policy of a slot back in force, where the new one is already. If that fails, it
    /// is tried again at the next look.
    fn reinstate(&self, old: &Arc<Sandbox>) -> Result<()> {
        if old.policy.is_some() {
            let change = Change::of_known(old, old.rules.compile());
            for (_, published) in publish::all(&*self.kernel, &self.ledger, vec![change]) {
                if let Err(error) = published {
                    self.table.insert(Sandbox { policy: None, ..Sandbox::clone(old) });
                    return Err(error);
                }
            }
        }
        self.follow_rules(old)
    }
}
