//! A secret with what is known about it.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::{SecretMetadata, SecretName, SecretValue};

/// Where a secret comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretSource {
    /// A request to the API.
    Api,
    /// `[secrets] file`.
    File,
    /// `[secrets] directory`.
    Directory,
}

impl fmt::Display for SecretSource {
    /// The key of the configuration, or `the API`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "the API",
            Self::File => "[secrets] file",
            Self::Directory => "[secrets] directory",
        })
    }
}

/// What may be shown of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretInfo {
    /// `sec_` and hexadecimal digits. Stays with the secret.
    pub id: String,
    /// Unique.
    pub name: SecretName,
    /// 1 for a new secret, and one more for each new value.
    pub version: u64,
    /// What the client stored with it.
    pub metadata: SecretMetadata,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its value or its metadata was last changed.
    pub updated_at: Timestamp,
    /// Where it comes from.
    pub source: SecretSource,
}

/// A secret. No `Debug`, because of its value.
#[derive(Clone)]
pub(super) struct StoredSecret {
    pub info: SecretInfo,
    pub value: SecretValue,
}
