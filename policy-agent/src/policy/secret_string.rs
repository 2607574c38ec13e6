//! A string that must not be displayed.

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// A password. `Debug` hides it, it does not implement `Serialize`, and errors about it do not
/// quote it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SecretString(String);

impl SecretString {
    /// Wraps a secret.
    #[must_use]
    pub const fn new(secret: String) -> Self {
        Self(secret)
    }

    /// The secret itself, for the proxy's handshake and the agent's own state file.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for SecretString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Deserialised through a value, because serde's own error would quote a password given as a
        // number.
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(secret) => Ok(Self(secret)),
            _ => Err(de::Error::custom("must be a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_shows() {
        assert_eq!(format!("{:?}", SecretString::new("hunter2".into())), "Secret(…)");
        let error = serde_json::from_str::<SecretString>("12345").expect_err("a number");
        assert!(!error.to_string().contains("12345"), "{error}");
    }
}
