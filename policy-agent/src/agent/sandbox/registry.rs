//! The registry of sandboxes. Readers never wait for a change in progress.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use tokio::{sync::watch, time::timeout};

use super::Sandbox;
use crate::{agent::error::AgentError, policy::SandboxId};

/// All sandboxes by ID.
#[derive(Debug, Default)]
pub struct SandboxRegistry {
    sandboxes: RwLock<BTreeMap<SandboxId, Arc<Sandbox>>>,
    /// How many requests are about to create a sandbox with this ID.
    announced: Mutex<BTreeMap<SandboxId, usize>>,
    changes: watch::Sender<()>,
}

impl SandboxRegistry {
    /// Returns one sandbox.
    #[must_use]
    pub fn get(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.read().get(id).cloned()
    }

    /// Returns one sandbox. If it is being created, waits until it is there, at most for `limit`.
    pub async fn get_or_await(&self, id: &SandboxId, limit: Duration) -> Option<Arc<Sandbox>> {
        if let Some(sandbox) = self.get(id) {
            return Some(sandbox);
        }
        let mut changes = self.subscribe();
        let waiting = async {
            while self.lock_announced().contains_key(id) {
                if let Some(sandbox) = self.get(id) {
                    return Some(sandbox);
                }
                changes.changed().await.ok()?;
            }
            self.get(id)
        };
        timeout(limit, waiting).await.ok().flatten()
    }

    /// Announces sandboxes that are about to be created. They count as such until the notice is
    /// dropped.
    #[must_use]
    pub(crate) fn announce(self: &Arc<Self>, ids: Vec<SandboxId>) -> CreationNotice {
        let mut announced = self.lock_announced();
        for id in &ids {
            *announced.entry(id.clone()).or_default() += 1;
        }
        drop(announced);
        CreationNotice { registry: Arc::clone(self), ids }
    }

    /// Returns the sandbox whose ID a user has entered. `None` also if the text is not a valid ID.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.get(&id.parse().ok()?)
    }

    /// Returns the sandbox whose ID a user has entered.
    ///
    /// # Errors
    /// There is no such sandbox.
    pub fn require(&self, id: &str) -> Result<Arc<Sandbox>, AgentError> {
        self.find(id).ok_or_else(|| AgentError::UnknownSandbox(id.to_owned()))
    }

    /// Returns all sandboxes, sorted by ID.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        self.read().values().cloned().collect()
    }

    /// Returns the network namespaces of all sandboxes. `None` is the agent's own.
    #[must_use]
    pub fn namespaces(&self) -> BTreeSet<Option<PathBuf>> {
        self.read().values().map(|sandbox| sandbox.base_spec.netns.clone()).collect()
    }

    /// Returns the number of sandboxes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Returns whether there are no sandboxes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a receiver that is notified of changes from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(crate) fn insert(&self, sandbox: Sandbox) {
        let mut sandboxes = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner);
        sandboxes.insert(sandbox.id().clone(), Arc::new(sandbox));
        self.changes.send_replace(());
    }

    pub(crate) fn remove(&self, id: &SandboxId) {
        self.sandboxes.write().unwrap_or_else(PoisonError::into_inner).remove(id);
        self.changes.send_replace(());
    }

    /// A poisoned lock is usable: a count may be too high, and waiting is bounded.
    fn lock_announced(&self) -> MutexGuard<'_, BTreeMap<SandboxId, usize>> {
        self.announced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A poisoned lock is usable: nothing panics while it holds the lock, and a single insertion
    /// cannot be left incomplete.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sandboxes that are being created.
#[derive(Debug)]
pub(crate) struct CreationNotice {
    registry: Arc<SandboxRegistry>,
    ids: Vec<SandboxId>,
}

impl Drop for CreationNotice {
    fn drop(&mut self) {
        if self.ids.is_empty() {
            return;
        }
        let mut announced = self.registry.lock_announced();
        for id in &self.ids {
            if let Some(count) = announced.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    announced.remove(id);
                }
            }
        }
        drop(announced);
        self.registry.changes.send_replace(());
    }
}
