//! Errors as the CNI specification has them.

use std::fmt;

use serde_json::{Value, json};

use crate::policy::ValidationError;

/// The codes of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CniErrorCode {
    IncompatibleVersion = 1,
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    Io = 5,
    Undecodable = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    NotAvailable = 50,
    /// The first of the codes that a plugin may define.
    NotEnforced = 100,
}

/// An error for the runtime.
#[derive(Debug)]
pub(super) struct CniError {
    code: CniErrorCode,
    message: String,
}

impl CniError {
    pub(super) fn new(code: CniErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// Input or an answer that cannot be read.
    pub(super) fn from_input(error: impl fmt::Display) -> Self {
        Self::new(CniErrorCode::Undecodable, error.to_string())
    }

    /// A wrong key of the configuration or annotation.
    pub(super) fn about(field: &str, problem: impl fmt::Display) -> Self {
        Self::new(CniErrorCode::InvalidConfig, format!("{field}: {problem}"))
    }

    pub(super) fn is_unknown_container(&self) -> bool {
        self.code == CniErrorCode::UnknownContainer
    }

    pub(super) fn to_json(&self) -> Value {
        let message = format!("policy-agent: {}", self.message);
        json!({"cniVersion": "1.0.0", "code": self.code as u32, "msg": message})
    }
}

/// A wrong key of the configuration or annotation.
impl From<ValidationError> for CniError {
    fn from(invalid: ValidationError) -> Self {
        Self::new(CniErrorCode::InvalidConfig, invalid.to_string())
    }
}

impl fmt::Display for CniError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
