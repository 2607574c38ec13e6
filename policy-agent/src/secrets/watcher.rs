//! Reads the operator's secrets again when they change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};

use super::{OperatorSecrets, SecretSources, SecretStore};

/// How often the agent looks whether the files have changed. Polled, because notices of the kernel
/// do not come through every kind of mount.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Keeps the operator's secrets in a store up to date.
pub(crate) struct SecretWatcher {
    sources: SecretSources,
    store: SecretStore,
    last: Mutex<OperatorSecrets>,
}

impl SecretWatcher {
    /// Reads the secrets for the first time. Blocks.
    pub(crate) fn start(sources: SecretSources, store: SecretStore) -> Arc<Self> {
        let watcher = Self { sources, store, last: Mutex::default() };
        watcher.refresh(true);
        Arc::new(watcher)
    }

    /// Reads the files that have changed, or all. Blocks.
    pub(crate) fn refresh(&self, in_any_case: bool) {
        if self.sources.is_empty() {
            return;
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(next) = last.refreshed(&self.sources, in_any_case) else { return };
        for problem in next.problems() {
            tracing::error!("a source of secrets is broken, and its old values stay: {problem}");
        }
        if next.secrets().len() != last.secrets().len() || last.problems() != next.problems() {
            tracing::info!(secrets = next.len(), "read the operator's secrets");
        }
        self.store.replace_operator_secrets(next.secrets().clone());
        *last = next;
    }

    /// Looks for changes until the agent ends.
    pub(crate) async fn run(self: Arc<Self>) {
        if self.sources.is_empty() {
            return;
        }
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let watcher = Arc::clone(&self);
            let _ = spawn_blocking(move || watcher.refresh(false)).await;
        }
    }
}
