//! The certificate authorities that the system trusts.

use anyhow::{Context as _, Result};
use rustls::RootCertStore;

/// Loads the system's certificates, which takes tens of milliseconds.
///
/// # Errors
/// The runtime is stopping.
pub(crate) async fn load_system_roots() -> Result<RootCertStore> {
    let loading = tokio::task::spawn_blocking(rustls_native_certs::load_native_certs);
    let loaded = loading.await.context("loading the system's certificates")?;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    Ok(roots)
}
