//! Leases: sandboxes that the agent created end by themselves when their time is over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, sleep_until};

use super::{Agent, error::Error, reconciler::Reconciler, sandbox::Sandbox};
use crate::life::Term;

/// After how long an end is tried again that the kernel or the disk refused.
const TRY_AGAIN: Duration = Duration::from_secs(2);

impl Agent {
    /// Ends sandboxes when their leases do, for ever.
    pub(super) async fn end_leases(&self) {
        loop {
            tokio::select! {
                () = self.next_end() => {}
                // Another lease may be the next to end.
                () = self.renewed.notified() => continue,
            }
            match self.change(Reconciler::end_overdue).await {
                Ok(0) => continue,
                Ok(_) => {} // it has been logged
                Err(error) => tracing::error!("cannot end sandboxes whose time is over: {error}"),
            }
            sleep(TRY_AGAIN).await;
        }
    }

    /// Waits until the first lease ends.
    async fn next_end(&self) {
        let sandboxes = self.table.all();
        match sandboxes.iter().filter_map(|sandbox| sandbox.life.deadline()).min() {
            Some(deadline) => sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }
}

impl Reconciler {
    /// Ends the sandboxes whose leases are over. Returns how many could not be ended.
    pub fn end_overdue(&mut self) -> usize {
        let mut failed = 0;
        for sandbox in self.table.all() {
            if sandbox.life.deadline().is_none_or(|deadline| deadline > Instant::now()) {
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
    pub fn renew(&mut self, id: &str, timeout: Duration) -> Result<Arc<Sandbox>, Error> {
        let term = Term::lasting(timeout)?;
        let sandbox = self.table.find(id).ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let mut entry = sandbox.entry();
        let Some(lease) = &mut entry.life.lease else { return Ok(sandbox) };
        lease.ends = term.ends();
        self.store.save(&entry).map_err(|cause| Error::Failed {
            sandbox: sandbox.id().clone(),
            task: "cannot write its lease to disk",
            kept: "it ends when it was going to",
            cause,
        })?;
        sandbox.life.renew(term);
        Ok(sandbox)
    }
}
