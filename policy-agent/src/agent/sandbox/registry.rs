//! The sandboxes as everyone may see them. Whoever reads never waits for a change under way.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::watch;

use super::Sandbox;
use crate::policy::SandboxId;

/// All sandboxes, by ID.
#[derive(Debug, Default)]
pub struct SandboxRegistry {
    sandboxes: RwLock<BTreeMap<SandboxId, Arc<Sandbox>>>,
    changes: watch::Sender<()>,
}

impl SandboxRegistry {
    /// One sandbox.
    #[must_use]
    pub fn get(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.read().get(id).cloned()
    }

    /// One sandbox, by whatever text a user gave; no sandbox has an ID that is none.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<Arc<Sandbox>> {
        self.get(&id.parse().ok()?)
    }

    /// All of them, by ID.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Sandbox>> {
        self.read().values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells that something has changed, from now on.
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

    /// Nothing panics while it holds the lock, and a single insertion cannot be half done.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner)
    }
}
