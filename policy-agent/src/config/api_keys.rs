//! The keys of the API: `api_keys`, `[[api.keys]]` and `keys_file`.

use std::{collections::HashMap, fmt, path::Path};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use super::{AgentConfig, ApiConfig, parse};

/// The maximum length of a key's name, in bytes.
const MAX_NAME_LEN: usize = 63;

/// What the holder of a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ApiRole {
    /// Everything.
    Admin,
    /// The E2B-compatible API, reading, and deleting any sandbox.
    Sandboxes,
    /// Reading, except secrets.
    Read,
}

/// A key of the API with its name and role.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    /// The name in logs and messages.
    pub name: String,
    /// What its holder may do.
    pub role: ApiRole,
    /// The secret.
    pub key: String,
}

/// Hides the secret.
impl fmt::Debug for ApiKeyConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, role, key: _ } = self;
        f.debug_struct("ApiKeyConfig")
            .field("name", name)
            .field("role", role)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for ApiRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "admin",
            Self::Sandboxes => "sandboxes",
            Self::Read => "read",
        })
    }
}

/// The content of `keys_file`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<ApiKeyConfig>,
}

impl ApiConfig {
    /// Validates the keys of the configuration itself.
    ///
    /// # Errors
    /// A key is invalid; the error names it.
    pub(super) fn check_keys(&self) -> Result<()> {
        if let Some(index) = self.api_keys.iter().position(String::is_empty) {
            bail!("api.api_keys[{index}]: is empty");
        }
        if self.keys_file.as_ref().is_some_and(|path| !path.is_absolute()) {
            bail!("api.keys_file: is not an absolute path");
        }
        check_entries("api.keys", &self.keys)
    }

    /// Whether there are keys, or a file that may hold some.
    pub(super) fn has_keys(&self) -> bool {
        !self.api_keys.is_empty() || !self.keys.is_empty() || self.keys_file.is_some()
    }
}

impl AgentConfig {
    /// All keys of the API, those in `api.keys_file` included. Those of `api_keys` are `admin`.
    ///
    /// # Errors
    /// The file cannot be read, a key is invalid, or a name or key is given twice; the error names
    /// the entry.
    pub fn load_api_keys(&self) -> Result<Vec<ApiKeyConfig>> {
        let unnamed = self.api.api_keys.iter().enumerate();
        let unnamed = unnamed.map(|(index, key)| ApiKeyConfig {
            name: format!("api_keys[{index}]"),
            role: ApiRole::Admin,
            key: key.clone(),
        });
        let mut keys: Vec<ApiKeyConfig> = unnamed.chain(self.api.keys.iter().cloned()).collect();
        if let Some(path) = &self.api.keys_file {
            keys.extend(
                read_keys_file(path).with_context(|| {
                    format!("api.keys_file: fix the keys in {}", path.display())
                })?,
            );
        }
        if keys.is_empty() && self.api.listen.is_some() {
            bail!("api.listen: needs keys, and api.keys_file holds none");
        }
        reject_duplicates(&keys)?;
        Ok(keys)
    }
}

fn read_keys_file(path: &Path) -> Result<Vec<ApiKeyConfig>> {
    let text = std::fs::read_to_string(path).context("cannot read it")?;
    let KeysFile { keys } = parse::parse_toml(&text)?;
    check_entries("keys", &keys)?;
    Ok(keys)
}

/// Validates the names and secrets of a list of keys.
fn check_entries(field: &str, keys: &[ApiKeyConfig]) -> Result<()> {
    for (index, ApiKeyConfig { name, key, .. }) in keys.iter().enumerate() {
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > MAX_NAME_LEN || !name.bytes().all(is_name_byte) {
            bail!(
                "{field}[{index}].name: {name:?}: write 1 to {MAX_NAME_LEN} letters, digits, '-', '_' \
                 or '.'"
            );
        }
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{field}[{index}].key: write printable ASCII characters without spaces");
        }
    }
    Ok(())
}

fn reject_duplicates(keys: &[ApiKeyConfig]) -> Result<()> {
    let (mut names, mut secrets) = (HashMap::new(), HashMap::new());
    for ApiKeyConfig { name, key, .. } in keys {
        if names.insert(name.as_str(), ()).is_some() {
            bail!("api.keys: two keys are called {name:?}; give each its own name");
        }
        if let Some(other) = secrets.insert(key.as_str(), name) {
            bail!("api.keys: {other:?} and {name:?} are the same key; give each its own");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Vec<ApiKeyConfig>> {
        AgentConfig::parse(text)?.load_api_keys()
    }

    fn problem(text: &str) -> String {
        format!("{:#}", keys(text).expect_err(text))
    }

    fn entry(name: &str, role: &str, key: &str) -> String {
        format!("name = {name:?}\nrole = {role:?}\nkey = {key:?}\n")
    }

    #[test]
    fn keys_come_from_three_places() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("keys.toml");
        std::fs::write(&path, format!("[[keys]]\n{}", entry("grafana", "read", "k3"))).expect("it");
        let ci = entry("ci", "sandboxes", "k2");
        let text = format!("[api]\napi_keys = [\"k1\"]\nkeys_file = {path:?}\n[[api.keys]]\n{ci}");
        let found = keys(&text).expect("keys");
        let found: Vec<_> = found.iter().map(|key| (key.name.as_str(), key.role)).collect();
        let expected = [
            ("api_keys[0]", ApiRole::Admin),
            ("ci", ApiRole::Sandboxes),
            ("grafana", ApiRole::Read),
        ];
        assert_eq!(found, expected);
        std::fs::write(&path, "[[keys]]\nname = \"x\"\nkey = 7777\nrole = \"read\"").expect("it");
        let wrong = problem(&text);
        assert!(wrong.contains("keys.toml") && wrong.contains("keys[0].key"), "{wrong}");
        assert!(!wrong.contains("7777"), "{wrong}");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_key_is_shown() {
        let one = |name: &str, role: &str, key: &str| {
            problem(&format!("[[api.keys]]\n{}", entry(name, role, key)))
        };
        assert!(one("a b", "read", "s3cret").starts_with("api.keys[0].name: \"a b\": write"));
        assert!(one("ci", "read", "s3 cret").starts_with("api.keys[0].key: write"));
        assert!(one("ci", "root", "s3cret").contains("`admin`, `sandboxes`, `read`"));
        let two = |first: &str, second: &str| {
            problem(&format!("[[api.keys]]\n{first}[[api.keys]]\n{second}"))
        };
        let same_name = two(&entry("ci", "read", "s3cret"), &entry("ci", "read", "other"));
        assert!(same_name.contains("two keys are called \"ci\""), "{same_name}");
        let same_key = two(&entry("ci", "read", "s3cret"), &entry("cd", "admin", "s3cret"));
        assert!(same_key.contains("\"ci\" and \"cd\" are the same key"), "{same_key}");
        let missing = problem("[api]\nkeys_file = \"/nonexistent/keys\"");
        assert!(missing.contains("/nonexistent/keys"), "{missing}");
        for text in [one("ci", "read", "s3 cret"), one("ci", "root", "s3cret"), same_name, same_key]
        {
            assert!(!text.contains("s3"), "{text}");
        }
    }
}
