//! The operator's policy in force. A reload of the configuration replaces it.

use std::sync::{Arc, PoisonError, RwLock};

use super::sandbox::active_policy::PlatformPolicy;

/// The platform policy in force. Clones share it.
#[derive(Clone, Debug)]
pub struct CurrentPlatformPolicy(Arc<RwLock<Arc<PlatformPolicy>>>);

impl CurrentPlatformPolicy {
    /// The policy in force. It does not follow later changes.
    #[must_use]
    pub fn get(&self) -> Arc<PlatformPolicy> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another policy in force and returns the previous one.
    pub(crate) fn replace(&self, policy: Arc<PlatformPolicy>) -> Arc<PlatformPolicy> {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, policy)
    }
}

impl From<PlatformPolicy> for CurrentPlatformPolicy {
    fn from(policy: PlatformPolicy) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(policy))))
    }
}
