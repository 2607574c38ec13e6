//! What all opened connections share, and the limits of their number.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    client_tls::ClientTls,
    origin_tls::{CurrentOriginRoots, OriginRoots},
};
use crate::{ca::SandboxCaStore, policy::SandboxId, secrets::SecretStore};

/// Maximum number of opened connections of one sandbox. Each may hold up to about 2 MiB of bodies,
/// if neither side reads.
const MAX_PER_SANDBOX: usize = 256;
/// Maximum number of opened connections of all sandboxes.
const MAX_IN_ALL: usize = 8192;

/// Shared by all sandboxes.
pub(in crate::proxy) struct Interception {
    /// The authorities of sandboxes.
    pub ca_store: SandboxCaStore,
    /// What servers are verified against.
    pub origin_roots: CurrentOriginRoots,
    /// The values of placeholders.
    pub secrets: SecretStore,
    permits: Arc<Semaphore>,
}

impl Interception {
    /// Reads the operator's roots from `extra_roots`.
    ///
    /// # Errors
    /// The roots cannot be read.
    pub(in crate::proxy) fn new(
        state_dir: &Path,
        extra_roots: Option<&PathBuf>,
        secrets: SecretStore,
    ) -> Result<Self> {
        Ok(Self {
            ca_store: SandboxCaStore::new(state_dir),
            origin_roots: CurrentOriginRoots::new(OriginRoots::read(
                extra_roots.map(PathBuf::as_path),
            )?),
            secrets,
            permits: Arc::new(Semaphore::new(MAX_IN_ALL)),
        })
    }
}

/// The part of one sandbox.
pub(in crate::proxy) struct SandboxInterception {
    /// Loaded when the sandbox first has a rule.
    tls: Mutex<Option<Arc<ClientTls>>>,
    permits: Arc<Semaphore>,
}

impl Default for SandboxInterception {
    fn default() -> Self {
        Self { tls: Mutex::default(), permits: Arc::new(Semaphore::new(MAX_PER_SANDBOX)) }
    }
}

/// Counts an opened connection until it is dropped.
pub(super) struct InterceptionPermits {
    _of_sandbox: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl SandboxInterception {
    /// Counts one more connection. `None` if a limit is reached.
    pub(super) fn acquire(&self, shared: &Interception) -> Option<InterceptionPermits> {
        Some(InterceptionPermits {
            _of_sandbox: Arc::clone(&self.permits).try_acquire_owned().ok()?,
            _of_all: Arc::clone(&shared.permits).try_acquire_owned().ok()?,
        })
    }

    /// The TLS configurations of the sandbox. Makes its authority if it has none.
    ///
    /// # Errors
    /// The authority can neither be read nor written.
    pub(in crate::proxy) fn client_tls(
        &self,
        shared: &Interception,
        sandbox: &SandboxId,
    ) -> Result<Arc<ClientTls>> {
        let mut known = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tls) = &*known {
            return Ok(Arc::clone(tls));
        }
        let tls = Arc::new(ClientTls::new(shared.ca_store.load_or_make(sandbox)?)?);
        *known = Some(Arc::clone(&tls));
        Ok(tls)
    }
}
