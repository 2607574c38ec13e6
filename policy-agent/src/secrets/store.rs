//! The secrets in memory.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use super::{SecretLookup, SecretName, SecretValue};

/// The secrets of the agent. Clones share them. `Debug` shows no values.
#[derive(Clone, Default)]
pub struct SecretStore(Arc<RwLock<HashMap<SecretName, SecretValue>>>);

impl SecretLookup for SecretStore {
    fn current_value(&self, name: &SecretName) -> Option<SecretValue> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretStore(…)")
    }
}
