//! Ends the gateway's connections when the agent stops: requests in progress may complete, within a
//! time limit.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFuture, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// The client connections, and whether they have to end.
#[derive(Debug, Default)]
pub(super) struct ConnectionDrain {
    draining: CancellationToken,
    connections: TaskTracker,
}

impl ConnectionDrain {
    /// Serves a connection, which has to end after [`Self::draining`].
    pub(super) fn spawn(&self, serving: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.connections.track_future(serving));
    }

    /// Returns once the connections have to end.
    pub(super) fn draining(&self) -> WaitForCancellationFuture<'_> {
        self.draining.cancelled()
    }

    /// Like [`Self::draining`], for tasks of their own.
    pub(super) fn draining_owned(&self) -> WaitForCancellationFutureOwned {
        self.draining.clone().cancelled_owned()
    }

    /// Ends whatever waits for something new, when the connections have to end. `None` in that
    /// case.
    pub(super) async fn run_until_draining<T>(
        &self,
        waiting: impl Future<Output = T>,
    ) -> Option<T> {
        self.draining.run_until_cancelled(waiting).await
    }

    /// Waits until the agent stops, and then until all connections have ended, but not longer than
    /// `limit`.
    pub(super) async fn run(&self, mut stopping: watch::Receiver<bool>, limit: Duration) {
        // An error means that the agent has stopped.
        let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
        self.draining.cancel();
        self.connections.close();
        if timeout(limit, self.connections.wait()).await.is_err() {
            let connections = self.connections.len();
            tracing::warn!(connections, "requests in progress were broken off");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_drain_waits_for_connections_and_ends_what_is_idle() {
        let (drain, (stop, stopping)) =
            (Arc::new(ConnectionDrain::default()), watch::channel(false));
        let (finish, finished) = oneshot::channel::<()>();
        let idle = Arc::clone(&drain);
        drain.spawn(async move {
            let waited = idle.run_until_draining(std::future::pending::<()>()).await;
            assert_eq!(waited, None);
            let _ = finish.send(());
        });
        stop.send(true).expect("a receiver");
        drain.run(stopping, Duration::from_secs(60)).await;
        assert_eq!(finished.await, Ok(()));
    }

    #[tokio::test]
    async fn a_drain_does_not_wait_longer_than_its_limit() {
        let (drain, (stop, stopping)) = (ConnectionDrain::default(), watch::channel(false));
        drain.spawn(std::future::pending());
        drop(stop);
        drain.run(stopping, Duration::ZERO).await;
        assert_eq!(drain.connections.len(), 1);
    }
}
