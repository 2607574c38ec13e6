//! From TOML text to the configuration, with errors that name the key and hold no secret: TOML's own
//! show the whole line, and that may be the one with the API's keys.

use anyhow::{Error, Result, anyhow};
use toml::{Deserializer, de};

use super::Config;

/// What holds secrets.
const SECRET: &str = "api.api_keys";

/// Reads the types; what they cannot say is checked elsewhere.
pub(super) fn read(text: &str) -> Result<Config> {
    let deserializer = Deserializer::parse(text)
        .map_err(|error| anyhow!("it is not TOML: {}", told(text, "", &error)))?;
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let path = error.path().to_string();
        told(text, if path == "." { "" } else { &path }, error.inner())
    })
}

fn told(text: &str, path: &str, error: &de::Error) -> Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let holds_secrets = path == "api" || path.starts_with(SECRET);
    let message = match error.message() {
        // They quote the value.
        message if holds_secrets && message.starts_with("invalid") => "it is of another type",
        message => message,
    };
    let path: String = path.chars().flat_map(char::escape_debug).collect();
    match path.as_str() {
        "" => anyhow!("line {line}: {message}"),
        path => anyhow!("line {line}: {path}: {message}"),
    }
}
