//! The registry of sandboxes. Readers never wait for a change in progress.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use tokio::sync::watch;

use super::Sandbox;
use crate::{agent::error::AgentError, policy::SandboxId};

/// All sandboxes by ID.
#[derive(Debug, Default)]
pub struct SandboxRegistry {
    sandboxes: RwLock<BTreeMap<SandboxId, Arc<Sandbox>>>,
    changes: watch::Sender<()>,
}

impl SandboxRegistry {
    /// Returns one sandbox.
    #[must_use]
    pub fn get(&self, id: &SandboxId) -> Option<Arc<Sandbox>> {
        self.read().get(id).cloned()
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

    /// A poisoned lock is usable: nothing panics while it holds the lock, and a single insertion
    /// cannot be left incomplete.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<SandboxId, Arc<Sandbox>>> {
        self.sandboxes.read().unwrap_or_else(PoisonError::into_inner)
    }
}
