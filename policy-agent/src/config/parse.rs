//! Parses the TOML files of the configuration. Errors name the key and hold no secrets: those of
//! the TOML parser quote the whole line, which may contain the API keys.

use anyhow::{Error, Result, anyhow};
use serde::de::DeserializeOwned;
use toml::{Deserializer, de};

use crate::policy::closest_name;

/// The longest unknown key, in bytes, for which a known one is suggested.
const MAX_COMPARED_LEN: usize = 80;

/// The keys that hold secrets.
const SECRET_KEYS: [&str; 4] = ["api.api_keys", "api.keys", "keys", "metrics.token"];
/// The tables that contain these keys.
const SECRET_TABLES: [&str; 2] = ["api", "metrics"];

/// Deserializes the configuration, or the file with keys. What the types cannot express is not
/// validated.
pub(super) fn parse_toml<T: DeserializeOwned>(text: &str) -> Result<T> {
    let deserializer = Deserializer::parse(text)
        .map_err(|error| anyhow!("it is not TOML: {}", redacted_error(text, "", &error)))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        redacted_error(text, if path == "." { "" } else { &path }, error.inner())
    })
}

fn redacted_error(text: &str, path: &str, error: &de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let holds_secrets =
        SECRET_TABLES.contains(&path) || SECRET_KEYS.iter().any(|secret| path.starts_with(secret));
    let message = match error.message() {
        // These messages quote the value.
        message if holds_secrets && message.starts_with("invalid") => "it is of another type",
        message => message,
    };
    let suggestion = suggested_key(message).map(|key| format!("; did you mean `{key}`?"));
    let message = format!("{message}{}", suggestion.unwrap_or_default());
    let path: String = path.chars().flat_map(char::escape_debug).collect();
    match path.as_str() {
        "" => anyhow!("line {line}: {message}"),
        path => anyhow!("line {line}: {path}: {message}"),
    }
}

/// The known key that is closest to an unknown one. The message names all of them: "unknown field
/// `a`, expected one of `b`, `c`".
fn suggested_key(message: &str) -> Option<&str> {
    let (field, known) = message.strip_prefix("unknown field `")?.split_once("`, ")?;
    let known = known.split('`').skip(1).step_by(2);
    (field.len() <= MAX_COMPARED_LEN).then(|| closest_name(field, known)).flatten()
}
