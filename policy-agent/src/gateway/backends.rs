//! The backends of all sandboxes that somebody has visited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::backend::Backend;
use crate::{
    agent::{Sandbox, Table},
    policy::SandboxId,
};

/// All of them.
#[derive(Debug)]
pub struct Backends {
    limit: usize,
    known: Mutex<HashMap<SandboxId, Arc<Backend>>>,
}

impl Backends {
    /// None yet; each may have so many connections at a time.
    pub fn new(limit: usize) -> Self {
        Self { limit, known: Mutex::default() }
    }

    /// The backend of a sandbox as it is now. Connections to where it was before end.
    pub fn of(&self, sandbox: &Sandbox) -> Arc<Backend> {
        let mut known = self.known();
        if let Some(backend) = known.get(sandbox.id())
            && backend.is_of(sandbox)
        {
            return Arc::clone(backend);
        }
        let backend = Arc::new(Backend::of(sandbox, self.limit));
        if let Some(before) = known.insert(sandbox.id().clone(), Arc::clone(&backend)) {
            before.retire();
        }
        backend
    }

    /// Ends what does not fit its sandbox any more.
    pub fn review(&self, table: &Table) {
        self.known().retain(|id, backend| {
            let fits = table.get(id).is_some_and(|sandbox| backend.is_of(&sandbox));
            if !fits {
                backend.retire();
            }
            fits
        });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Backend>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
