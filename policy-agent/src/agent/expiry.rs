//! Leases: sandboxes that the agent created end by themselves when their time is over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until};

use super::{
    Agent,
    error::AgentError,
    reconciler::Reconciler,
    sandbox::{Sandbox, lifetime::LeaseDeadline},
};

/// After how long an end is tried again that the kernel or the disk refused.
const RETRY_DELAY: Duration = Duration::from_secs(2);

impl Agent {
    /// Ends sandboxes when their leases do, for ever.
    pub(super) async fn expire_leases(&self) {
        loop {
            tokio::select! {
                () = self.wait_for_next_expiry() => {}
                // Another lease may be the next to end.
                () = self.lease_changed.notified() => continue,
            }
            match self.with_reconciler(Reconciler::delete_expired).await {
                Ok(0) => continue,
                Ok(_) => {} // it has been logged
                Err(error) => tracing::error!("cannot end sandboxes whose time is over: {error}"),
            }
            sleep(RETRY_DELAY).await;
        }
    }

    /// Waits until the first lease ends.
    async fn wait_for_next_expiry(&self) {
        let sandboxes = self.registry.all();
        match sandboxes.iter().filter_map(|sandbox| sandbox.lifetime.deadline()).min() {
            Some(deadline) => sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }
}

impl Reconciler {
    /// Ends the sandboxes whose leases are over. Returns how many could not be ended.
    pub fn delete_expired(&mut self) -> usize {
        let mut failed = 0;
        for sandbox in self.registry.all() {
            if sandbox.lifetime.deadline().is_none_or(|deadline| deadline > Instant::now()) {
                continue;
            }
            tracing::info!(sandbox = %sandbox.id(), "its time is over");
            if let Err(error) = self.delete(sandbox.id().as_str()).map_err(anyhow::Error::new) {
                tracing::error!("cannot end a sandbox whose time is over: {error:#}");
                failed += 1;
            }
        }
        failed
    }

    /// Has a sandbox's lease end `timeout` from now. One without a lease gets none.
    ///
    /// # Errors
    /// There is no such sandbox, the timeout is too long, or the disk refuses; the lease is as
    /// before then.
    pub fn renew_lease(&mut self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, AgentError> {
        let deadline = LeaseDeadline::after(timeout)?;
        let sandbox =
            self.registry.find(id).ok_or_else(|| AgentError::UnknownSandbox(id.to_owned()))?;
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
