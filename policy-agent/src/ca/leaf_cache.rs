//! The certificates that a sandbox's authority has issued lately. A sandbox with a wildcard rule can
//! ask for new names without end, so there is a limit per sandbox and one for all.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::SandboxCa;
use crate::policy::DomainName;

/// Maximum number of cached certificates of one sandbox.
const MAX_PER_SANDBOX: usize = 64;
/// Maximum number of cached certificates of all sandboxes. Above it, certificates are issued and not
/// cached.
const MAX_IN_ALL: usize = 8192;
/// How long a certificate is used. It is valid for much longer.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

static CACHED_IN_ALL: AtomicUsize = AtomicUsize::new(0);

/// The certificates of one sandbox.
pub(crate) struct LeafCache {
    ca: SandboxCa,
    leaves: Mutex<HashMap<DomainName, CachedLeaf>>,
}

struct CachedLeaf {
    certified: Arc<CertifiedKey>,
    issued_at: Instant,
}

impl LeafCache {
    /// An empty cache.
    pub(crate) fn new(ca: SandboxCa) -> Self {
        Self { ca, leaves: Mutex::default() }
    }

    /// The authority.
    pub(crate) const fn ca(&self) -> &SandboxCa {
        &self.ca
    }

    /// A certificate for a name. `None` if none can be issued.
    fn leaf_for(&self, name: &DomainName) -> Option<Arc<CertifiedKey>> {
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = leaves.get(name).filter(|leaf| leaf.issued_at.elapsed() < MAX_AGE) {
            return Some(Arc::clone(&cached.certified));
        }
        let certified = self.ca.issue(name);
        let certified = certified.inspect_err(|error| tracing::warn!(%name, "{error:#}")).ok()?;
        if leaves.len() >= MAX_PER_SANDBOX {
            halve(&mut leaves);
        }
        let leaf = CachedLeaf { certified: Arc::clone(&certified), issued_at: Instant::now() };
        if leaves.remove(name).is_some() {
            CACHED_IN_ALL.fetch_sub(1, Ordering::Relaxed);
        }
        if CACHED_IN_ALL.fetch_add(1, Ordering::Relaxed) < MAX_IN_ALL {
            leaves.insert(name.clone(), leaf);
        } else {
            CACHED_IN_ALL.fetch_sub(1, Ordering::Relaxed);
        }
        Some(certified)
    }
}

/// Removes every second certificate. A cache that a sandbox keeps full must not be searched for the
/// oldest one each time.
fn halve(leaves: &mut HashMap<DomainName, CachedLeaf>) {
    let (before, mut index) = (leaves.len(), 0);
    leaves.retain(|_, _| {
        index += 1;
        index % 2 == 0
    });
    CACHED_IN_ALL.fetch_sub(before - leaves.len(), Ordering::Relaxed);
}

impl Drop for LeafCache {
    fn drop(&mut self) {
        let leaves = self.leaves.get_mut().unwrap_or_else(PoisonError::into_inner);
        CACHED_IN_ALL.fetch_sub(leaves.len(), Ordering::Relaxed);
    }
}

/// Presents a certificate for the name that the ClientHello asks for.
impl ResolvesServerCert for LeafCache {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = DomainName::parse_requested(client_hello.server_name()?).ok()?;
        self.leaf_for(&name)
    }
}

/// Hides the key.
impl fmt::Debug for LeafCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafCache").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> LeafCache {
        LeafCache::new(SandboxCa::generate(&"web".parse().expect("an ID")).expect("made"))
    }

    fn name(text: &str) -> DomainName {
        DomainName::parse(text).expect("a name")
    }

    #[test]
    fn a_certificate_is_issued_once() {
        let cache = cache();
        let leaf = |text| cache.leaf_for(&name(text)).expect("issued");
        assert!(Arc::ptr_eq(&leaf("a.example"), &leaf("a.example")));
        assert!(!Arc::ptr_eq(&leaf("a.example"), &leaf("b.example")));
    }

    #[test]
    fn the_number_of_certificates_is_bounded() {
        let cache = cache();
        for index in 0..5 * MAX_PER_SANDBOX {
            cache.leaf_for(&name(&format!("n{index}.example"))).expect("issued");
            assert!(cache.leaves.lock().expect("no panic").len() <= MAX_PER_SANDBOX);
        }
    }
}
