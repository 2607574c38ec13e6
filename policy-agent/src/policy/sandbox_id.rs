//! The ID of a sandbox.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::ValidationError;

/// A sandbox's ID: `[a-z0-9]{1,63}`, so that it is a valid DNS label and file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SandboxId(String);

impl SandboxId {
    /// The ID as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for SandboxId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl FromStr for SandboxId {
    type Err = ValidationError;

    fn from_str(text: &str) -> Result<Self, ValidationError> {
        let fits = (1..=63).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Ok(Self(text.to_owned()));
        }
        Err(ValidationError::about_entry(
            "sandboxID",
            text,
            "an ID has 1 to 63 characters, only lower-case letters a-z and digits",
        ))
    }
}

impl TryFrom<String> for SandboxId {
    type Error = String;

    /// The error contains only the problem. The position in the JSON text provides the field.
    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|error: ValidationError| format!("{text:?}: {}", error.problem))
    }
}

impl From<SandboxId> for String {
    fn from(id: SandboxId) -> Self {
        id.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_letters_and_digits() {
        let longest = "a".repeat(63);
        for good in ["a", "0", "i62mff4ahtrdfdkyn2esc", &longest] {
            assert_eq!(good.parse::<SandboxId>().expect(good).to_string(), good);
        }
        let too_long = "a".repeat(64);
        for bad in ["", "A", "a-b", "a.b", "../a", "a/b", "ä", "a ", "a\0", &too_long] {
            assert!(bad.parse::<SandboxId>().is_err(), "{bad:?}");
        }
    }
}
