//! The backends of all sandboxes that have received a request.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{backend::SandboxBackend, connection_pool::ConnectionPool};
use crate::{
    agent::{Sandbox, SandboxRegistry},
    policy::SandboxId,
};

/// All backends by sandbox.
#[derive(Debug)]
pub(super) struct BackendRegistry {
    max_connections: usize,
    pool: Arc<ConnectionPool>,
    backends: Mutex<HashMap<SandboxId, Arc<SandboxBackend>>>,
}

impl BackendRegistry {
    /// Creates an empty registry. Each backend may have up to `max_connections` connections, all
    /// together `sockets`, and none more than half of these.
    pub(super) fn new(max_connections: usize, sockets: usize) -> Self {
        let max_connections = max_connections.min((sockets / 2).max(1));
        Self {
            max_connections,
            pool: Arc::new(ConnectionPool::new(sockets)),
            backends: Mutex::default(),
        }
    }

    /// The pool of idle connections.
    pub(super) const fn pool(&self) -> &Arc<ConnectionPool> {
        &self.pool
    }

    /// Returns the backend for the current state of a sandbox. An outdated backend is retired and
    /// its connections end.
    pub(super) fn get_or_create(&self, sandbox: &Sandbox) -> Arc<SandboxBackend> {
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

    /// Retires all backends that no longer match their sandbox.
    pub(super) fn retire_stale(&self, sandboxes: &SandboxRegistry) {
        self.lock_backends().retain(|id, backend| {
            let is_current =
                sandboxes.get(id).is_some_and(|sandbox| backend.is_current_for(&sandbox));
            if !is_current {
                backend.retire();
            }
            is_current
        });
    }

    fn lock_backends(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<SandboxBackend>>> {
        self.backends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
