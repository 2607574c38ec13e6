//! The backends of all sandboxes that somebody has visited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{backend::Backend, pool::Pool};
use crate::{
    agent::{Sandbox, Table},
    policy::SandboxId,
};

/// All of them.
#[derive(Debug)]
pub struct Backends {
    limit: usize,
    pool: Arc<Pool>,
    known: Mutex<HashMap<SandboxId, Arc<Backend>>>,
}

impl Backends {
    /// None yet; each may have so many connections at a time, all of them together `sockets`, of
    /// which none has more than half.
    pub fn new(limit: usize, sockets: usize) -> Self {
        let limit = limit.min((sockets / 2).max(1));
        Self { limit, pool: Arc::new(Pool::new(sockets)), known: Mutex::default() }
    }

    /// The connections that wait for their next request.
    pub const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The backend of a sandbox as it is now. Connections to where it was before end.
    pub fn of(&self, sandbox: &Sandbox) -> Arc<Backend> {
        let mut known = self.known();
        if let Some(backend) = known.get(sandbox.id())
            && backend.is_of(sandbox)
        {
            return Arc::clone(backend);
        }
        let backend = Arc::new(Backend::of(sandbox, self.limit, &self.pool));
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
