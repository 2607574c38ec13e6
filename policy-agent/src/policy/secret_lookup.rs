//! Secrets that headers of rules refer to: their names, their values, and who provides them.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

/// Maximum length of a secret's name in bytes.
const MAX_NAME_LEN: usize = 128;

/// Prefix of the IDs of secrets. A name cannot start with it, so a name is never an ID.
pub const SECRET_ID_PREFIX: &str = "sec_";

/// The name of a secret: lower-case letters, digits, `_` and `-`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SecretName(String);

impl SecretName {
    /// Parses a name as a user writes it. Spaces around it and case do not count.
    ///
    /// # Errors
    /// The name is invalid. The message says why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.trim().to_ascii_lowercase();
        let known = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if name.is_empty() || name.len() > MAX_NAME_LEN {
            return Err(format!("a secret's name has 1 to {MAX_NAME_LEN} characters"));
        }
        if !name.bytes().all(known) {
            return Err("a secret's name holds only letters, digits, _ and -".to_owned());
        }
        if name.starts_with(SECRET_ID_PREFIX) {
            return Err(format!("a secret's name cannot start with {SECRET_ID_PREFIX}"));
        }
        Ok(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The value of a secret. Clones share it, and it is wiped when the last one is dropped. It has no
/// `Debug` and no `Serialize`.
#[derive(Clone)]
pub struct SecretValue(Arc<Zeroizing<Vec<u8>>>);

impl SecretValue {
    /// Takes over a value.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(Arc::new(Zeroizing::new(value)))
    }

    /// The value itself, for the header and the agent's own state.
    #[must_use]
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

/// Provides the current values of secrets.
pub trait SecretLookup: Send + Sync {
    /// The current value of a secret. `None`: there is no secret with this name.
    fn current_value(&self, name: &SecretName) -> Option<SecretValue>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_lower_case() {
        for (text, name) in [("example", "example"), (" My_Key-1 ", "my_key-1"), ("sec-", "sec-")] {
            assert_eq!(SecretName::parse(text).as_ref().map(SecretName::as_str), Ok(name));
        }
        let long = "a".repeat(MAX_NAME_LEN + 1);
        for text in ["", " ", "a b", "a.b", "a/b", "é", "sec_1", "SEC_1", &long] {
            assert!(SecretName::parse(text).is_err(), "{text:?}");
        }
        assert!(SecretName::parse(&long[1..]).is_ok());
    }
}
