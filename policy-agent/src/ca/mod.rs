//! The certificate authorities of sandboxes with `network.rules`. The egress proxy ends the TLS of
//! names with a rule, and the sandbox has to trust the certificates that it presents.
//!
//! Each sandbox has an authority of its own, so that what one sandbox trusts says nothing about
//! another. Its key never leaves the host.

mod ca_store;
mod leaf_cache;
mod sandbox_ca;

pub(crate) use self::leaf_cache::LeafCache;
pub use self::{ca_store::SandboxCaStore, sandbox_ca::SandboxCa};
