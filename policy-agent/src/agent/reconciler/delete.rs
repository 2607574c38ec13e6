//! Deletes sandboxes.

use std::sync::Arc;

use anyhow::Result;

use super::Reconciler;
use crate::agent::{error::AgentError, sandbox::Sandbox};

impl Reconciler {
    /// Detaches and deletes a sandbox.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk reports an error. The sandbox is then
    /// kept.
    pub(crate) fn delete(&mut self, id: &str) -> Result<(), AgentError> {
        self.delete_all(&[id.to_owned()]).pop().unwrap_or(Ok(()))
    }

    /// Detaches and deletes sandboxes. Returns the result of each.
    ///
    /// The state files are removed first: if that fails, nothing is detached. If the agent dies in
    /// between, the gates stay attached and keep blocking.
    pub(crate) fn delete_all(&mut self, ids: &[String]) -> Vec<Result<(), AgentError>> {
        let known: Vec<_> = ids.iter().map(|id| self.registry.find(id)).collect();
        let files: Vec<_> = known.iter().flatten().map(|sandbox| sandbox.id()).collect();
        let mut removed = self.store.remove_all_of(&files).into_iter();
        let dataplane = Arc::clone(&self.dataplane);
        let _expedited = dataplane.expedite_attaching();
        let mut results = Vec::with_capacity(ids.len());
        for (id, sandbox) in ids.iter().zip(&known) {
            results.push(match sandbox {
                None => self.delete_orphan(id),
                Some(sandbox) => match removed.next().unwrap_or(Ok(())) {
                    // The same sandbox may have been named twice.
                    Ok(()) if self.registry.get(sandbox.id()).is_none() => {
                        Err(AgentError::UnknownSandbox(id.clone()))
                    }
                    Ok(()) => self.detach_and_forget(sandbox),
                    Err(cause) => Err(deletion_error(sandbox, "cannot forget it", cause)),
                },
            });
        }
        self.policy_interner.prune();
        results
    }

    fn detach_and_forget(&mut self, sandbox: &Sandbox) -> Result<(), AgentError> {
        if let Err(cause) = self.interface_pool.detach_sandbox(sandbox, &self.attachments) {
            if let Err(error) = self.store.save(&sandbox.to_record()) {
                tracing::error!(
                    sandbox = %sandbox.id(),
                    "cannot write it back to disk: {error:#}"
                );
            }
            return Err(deletion_error(sandbox, "cannot detach it", cause));
        }
        self.registry.remove(sandbox.id());
        sandbox.lifetime.end();
        self.release_slot(sandbox.slot);
        tracing::info!(sandbox = %sandbox.id(), "deleted");
        Ok(())
    }

    fn delete_orphan(&mut self, id: &str) -> Result<(), AgentError> {
        if !self.attachments.orphans.detach(id).map_err(AgentError::Internal)? {
            return Err(AgentError::UnknownSandbox(id.to_owned()));
        }
        tracing::info!(sandbox = id, "detached what an earlier agent left");
        Ok(())
    }
}

fn deletion_error(sandbox: &Sandbox, failure: &'static str, cause: anyhow::Error) -> AgentError {
    AgentError::Failed {
        sandbox: sandbox.id().clone(),
        failure,
        consequence: "it is kept; delete it again",
        cause,
    }
}
