//! The backends of all sandboxes that somebody has visited.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{backend::SandboxBackend, connection_pool::ConnectionPool};
use crate::{
    agent::{Sandbox, SandboxRegistry},
    policy::SandboxId,
};

/// All of them.
#[derive(Debug)]
pub struct BackendRegistry {
    max_connections: usize,
    pool: Arc<ConnectionPool>,
    backends: Mutex<HashMap<SandboxId, Arc<SandboxBackend>>>,
}

impl BackendRegistry {
    /// None yet; each may have so many connections at a time, all of them together `sockets`, of
    /// which none has more than half.
    pub fn new(max_connections: usize, sockets: usize) -> Self {
        let max_connections = max_connections.min((sockets / 2).max(1));
        Self {
            max_connections,
            pool: Arc::new(ConnectionPool::new(sockets)),
            backends: Mutex::default(),
        }
    }

    /// The connections that wait for their next request.
    pub const fn pool(&self) -> &Arc<ConnectionPool> {
        &self.pool
    }

    /// The backend of a sandbox as it is now. Connections to where it was before end.
    pub fn get_or_create(&self, sandbox: &Sandbox) -> Arc<SandboxBackend> {
        let mut backends = self.lock_backends();
        if let Some(backend) = backends.get(sandbox.id())
            && backend.is_current_for(sandbox)
        {
            return Arc::clone(backend);
        }
        let backend =
            Arc::new(SandboxBackend::for_sandbox(sandbox, self.max_connections, &self.pool));
        if let Some(replaced) = backends.insert(sandbox.id().clone(), Arc::clone(&backend)) {
            replaced.retire();
        }
        backend
    }

    /// Ends what does not fit its sandbox any more.
    pub fn retire_stale(&self, sandboxes: &SandboxRegistry) {
        self.lock_backends().retain(|id, backend| {
            let fits = sandboxes.get(id).is_some_and(|sandbox| backend.is_current_for(&sandbox));
            if !fits {
                backend.retire();
            }
            fits
        });
    }

    fn lock_backends(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<SandboxBackend>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
