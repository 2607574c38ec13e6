//! Why a secret cannot be changed or shown.

use super::{SecretName, SecretSource};
use crate::policy::ValidationError;

/// Why a request about a secret fails. Never holds a value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// A field is invalid.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// No secret has this name or ID.
    #[error("there is no secret {0:?}")]
    Unknown(String),
    /// There is such a secret already.
    #[error("there is a secret {0} already; update it")]
    Exists(SecretName),
    /// The operator's files hold the secret.
    #[error(
        "the secret {name} comes from {source_key} of the agent's configuration; change it there"
    )]
    FromOperator {
        /// Its name.
        name: SecretName,
        /// The key of the configuration.
        source_key: SecretSource,
    },
    /// There are too many secrets, or they are too long.
    #[error("{0}")]
    TooMany(String),
    /// The disk reports an error.
    #[error("cannot store the secrets")]
    Storage(#[source] anyhow::Error),
}
