//! The error about invalid configuration. It contains the field and the entry, and says what to do.

use std::fmt;

/// Maximum number of characters of an entry in an error.
const MAX_SHOWN_CHARS: usize = 80;

/// Why a configuration is rejected. The policy in force is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidationError {
    /// Path of the field in user notation: `network.denyOut[3]`. Empty if the text is not JSON.
    pub field: String,
    /// The entry at fault, unless it is a secret.
    pub entry: Option<String>,
    /// What is wrong and what to write instead.
    pub problem: String,
}

impl ValidationError {
    /// An error about a field as a whole.
    pub fn about_field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), entry: None, problem: problem.into() }
    }

    /// An error about the value of a field or one of its entries.
    pub fn about_entry(
        field: impl Into<String>,
        entry: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self { field: field.into(), entry: Some(entry.into()), problem: problem.into() }
    }

    /// The same error with the field's path prefixed: `network.x` in `[2]` is `[2].network.x`.
    #[must_use]
    pub fn with_field_prefix(mut self, prefix: &str) -> Self {
        self.field = join_field_path(prefix, &self.field);
        self
    }
}

/// Joins two parts of a field path.
fn join_field_path(prefix: &str, inner: &str) -> String {
    if prefix.is_empty() || inner.is_empty() || inner.starts_with('[') {
        format!("{prefix}{inner}")
    } else {
        format!("{prefix}.{inner}")
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        if let Some(entry) = &self.entry {
            // Debug form, because control characters must not reach a terminal or break a log line.
            let mut shown: String = entry.chars().take(MAX_SHOWN_CHARS).collect();
            if shown.len() < entry.len() {
                shown.push('…');
            }
            write!(f, "{shown:?}: ")?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ValidationError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_field_and_entry() {
        let error = ValidationError::about_entry("network.denyOut[3]", "exa mple.com", "no spaces");
        assert_eq!(error.to_string(), r#"network.denyOut[3]: "exa mple.com": no spaces"#);
        assert_eq!(
            error.with_field_prefix("[2]").to_string(),
            r#"[2].network.denyOut[3]: "exa mple.com": no spaces"#
        );
        assert_eq!(ValidationError::about_field("", "no JSON").to_string(), "no JSON");
        assert_eq!(
            ValidationError::about_field("[0].x", "bad").with_field_prefix("sandboxes").field,
            "sandboxes[0].x"
        );
    }

    #[test]
    fn entries_are_shortened_and_escaped() {
        let error = ValidationError::about_entry("f", "\u{1b}[31m\n", "bad").to_string();
        assert_eq!(error, r#"f: "\u{1b}[31m\n": bad"#);
        let long = ValidationError::about_entry("f", "é".repeat(500), "bad").to_string();
        assert!(long.chars().count() < 100, "{long}");
    }
}
