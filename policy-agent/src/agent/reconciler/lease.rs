//! Leases: renews them, and deletes the sandboxes whose leases have expired.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::Reconciler;
use crate::agent::{
    error::AgentError,
    sandbox::{Sandbox, lease::LeaseDeadline},
};

impl Reconciler {
    /// Deletes the sandboxes whose leases have expired. Returns how many could not be deleted.
    pub fn delete_expired(&mut self) -> usize {
        let mut failed = 0;
        for sandbox in self.registry.all() {
            if sandbox.lifetime.deadline().is_none_or(|deadline| deadline > Instant::now()) {
                continue;
            }
            tracing::info!(sandbox = %sandbox.id(), "its lease is over");
            if let Err(error) = self.delete(sandbox.id().as_str()).map_err(anyhow::Error::new) {
                tracing::error!("cannot delete a sandbox whose lease is over: {error:#}");
                failed += 1;
            }
        }
        failed
    }

    /// Sets the lease of a sandbox to end `timeout` from now. A sandbox without a lease does not
    /// get one.
    ///
    /// # Errors
    /// There is no such sandbox, the timeout is too long, or the disk reports an error. The lease
    /// is then unchanged.
    pub fn renew_lease(&mut self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, AgentError> {
        let deadline = LeaseDeadline::after(timeout)?;
        let sandbox = self.registry.require(id)?;
        let mut record = sandbox.to_record();
        let Some(lease) = &mut record.lifetime.lease else { return Ok(sandbox) };
        lease.ends_at = deadline.ends_at();
        self.store.save(&record).map_err(|cause| AgentError::Failed {
            sandbox: sandbox.id().clone(),
            failure: "cannot write its lease to disk",
            consequence: "it ends when it was going to",
            cause,
        })?;
        sandbox.lifetime.renew(deadline);
        Ok(sandbox)
    }
}
