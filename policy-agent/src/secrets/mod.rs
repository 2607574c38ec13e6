//! Secrets that headers of `network.rules` refer to: the store that the API and the operator's files
//! fill, and that the egress proxy reads. Uses `policy` only.
//!
//! ```text
//! API ──► SecretStore ──► secrets.json in state_dir
//!            ▲   └──────► current_value, for each request of a sandbox
//! [secrets] ─┘ operator_secrets, read anew when they change
//! ```

mod api_value;
mod error;
mod file_signature;
mod metadata;
mod operator_secrets;
mod state_file;
mod store;
mod stored_secret;
mod watcher;

pub(crate) use self::{
    api_value::SubmittedValue, metadata::SecretMetadata, operator_secrets::OperatorSecrets,
    stored_secret::SecretSource, watcher::SecretWatcher,
};
pub use self::{
    error::SecretError, operator_secrets::SecretSources, store::SecretStore,
    stored_secret::SecretInfo,
};
pub use crate::policy::{SecretLookup, SecretName, SecretValue};

/// Maximum length of a secret's value in bytes.
const MAX_VALUE_LEN: usize = 64 * 1024;
/// Maximum number of secrets.
const MAX_SECRETS: usize = 1000;
/// Maximum length of all values together in bytes.
const MAX_TOTAL_LEN: usize = 16 * 1024 * 1024;
