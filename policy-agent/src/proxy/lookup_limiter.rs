//! Limits how many names of one sandbox are being looked up at the same time.
//!
//! A lookup holds sockets until the DNS servers have answered. A sandbox that requests ever new
//! names with silent servers would otherwise take all file descriptors.

use tokio::sync::{Semaphore, SemaphorePermit};

/// Concurrent lookups per sandbox. Cached names need none.
pub(super) const MAX_CONCURRENT_LOOKUPS: usize = 64;

/// The lookup permits of one sandbox.
#[derive(Debug)]
pub(super) struct LookupLimiter(Semaphore);

impl Default for LookupLimiter {
    fn default() -> Self {
        Self(Semaphore::new(MAX_CONCURRENT_LOOKUPS))
    }
}

impl LookupLimiter {
    /// Waits for a permit, which lasts until it is dropped.
    pub(super) async fn acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.0.acquire().await.ok() // it is never closed
    }

    /// The number of free permits.
    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.0.available_permits()
    }
}
