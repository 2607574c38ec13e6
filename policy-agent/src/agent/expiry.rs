//! Expiry: deletes sandboxes that the agent created when their leases end, and removes temporary
//! entries of policies.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{sleep, sleep_until};

use super::{
    Agent,
    command::{AgentCommand, CommandReply},
};

/// Delay until a deletion that the kernel or the disk refused is retried.
const RETRY_DELAY: Duration = Duration::from_secs(2);

/// Longest wait for the end of an entry, after which the wall clock is read again: it may be set.
const MAX_ENTRY_WAIT: Duration = Duration::from_secs(60);

impl Agent {
    /// Removes temporary entries when they end. Runs without end.
    pub(super) async fn expire_entries(&self) {
        let mut changes = self.registry.subscribe();
        loop {
            let sandboxes = self.registry.all();
            let ends = sandboxes.iter().filter_map(|sandbox| sandbox.base_spec.next_expiry());
            let Some(next) = ends.min() else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let left = Duration::try_from(next.duration_since(Timestamp::now()));
            if let Some(left) = left.ok().filter(|left| !left.is_zero()) {
                tokio::select! {
                    () = sleep(left.min(MAX_ENTRY_WAIT)) => {}
                    // Another entry may be the next to end now.
                    _ = changes.changed() => {}
                }
                continue;
            }
            if let Err(error) = self.submit(AgentCommand::RemoveExpiredEntries).await {
                tracing::error!("cannot remove temporary entries: {error}");
            }
            // Leaves time for what failed, which is tried again.
            sleep(RETRY_DELAY).await;
        }
    }

    /// Deletes sandboxes when their leases end. Runs without end.
    pub(super) async fn expire_leases(&self) {
        loop {
            tokio::select! {
                () = self.wait_for_next_expiry() => {}
                // Another lease may be the next to end now.
                () = self.lease_changed.notified() => continue,
            }
            match self.submit(AgentCommand::DeleteExpired).await {
                Ok(CommandReply::StillExpired(0)) => continue,
                Ok(_) => {} // already logged
                Err(error) => {
                    tracing::error!("cannot delete sandboxes whose leases are over: {error}")
                }
            }
            sleep(RETRY_DELAY).await;
        }
    }

    /// Waits until the next lease ends.
    async fn wait_for_next_expiry(&self) {
        let sandboxes = self.registry.all();
        match sandboxes.iter().filter_map(|sandbox| sandbox.lifetime.deadline()).min() {
            Some(deadline) => sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    }
}
