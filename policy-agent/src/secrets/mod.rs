//! Secrets that headers of `network.rules` refer to: the store that the API and the operator's files
//! fill, and that the egress proxy reads. Uses `policy` only.

mod store;

pub use self::store::SecretStore;
pub use crate::policy::{SecretLookup, SecretName, SecretValue};
