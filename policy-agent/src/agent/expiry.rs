//! Lease expiry: deletes sandboxes that the agent created when their leases end.

use std::time::Duration;

use tokio::time::{sleep, sleep_until};

use super::{
    Agent,
    command::{AgentCommand, CommandReply},
};

/// Delay until a deletion that the kernel or the disk refused is retried.
const RETRY_DELAY: Duration = Duration::from_secs(2);

impl Agent {
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
