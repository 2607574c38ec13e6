//! `[rules]` and `[secrets]`: headers that the agent sets in requests of sandboxes, and the secrets
//! in them.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use crate::{policy::RuleLimits, secrets::SecretSources};

/// `[rules]`: the size of `network.rules` in requests.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// The maximum number of domains of a sandbox.
    pub max_domains: usize,
    /// The maximum number of headers of a domain.
    pub max_headers: usize,
    /// The maximum length of a header's value in bytes, with its placeholders.
    pub max_value_length: usize,
    /// The maximum number of secrets that the headers of a domain refer to.
    pub max_secrets: usize,
    /// Certificates (PEM) that are trusted besides the system's, for servers of names with rules.
    pub extra_roots: Option<PathBuf>,
    /// Whether envd, E2B's daemon in a sandbox, is sent the authority of a sandbox with rules.
    pub send_ca_to_envd: bool,
}

impl Default for RulesConfig {
    fn default() -> Self {
        let limits = RuleLimits::default();
        Self {
            max_domains: limits.domains,
            max_headers: limits.headers,
            max_value_length: limits.value_bytes,
            max_secrets: limits.secrets,
            extra_roots: None,
            send_ca_to_envd: false,
        }
    }
}

impl RulesConfig {
    /// The limits of `network.rules`.
    pub(super) const fn limits(&self) -> RuleLimits {
        RuleLimits {
            domains: self.max_domains,
            headers: self.max_headers,
            value_bytes: self.max_value_length,
            secrets: self.max_secrets,
        }
    }

    /// This section with those keys of another one that take effect without a restart.
    pub(super) fn with_live_keys_of(&self, new: &Self) -> Self {
        Self { send_ca_to_envd: self.send_ca_to_envd, ..new.clone() }
    }
}

/// `[secrets]`: secrets of the operator, besides those of the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecretsConfig {
    /// A TOML file with one `name = "value"` a line. Default: none.
    pub file: Option<PathBuf>,
    /// A directory with one file for each secret, named like it. Default: none.
    pub directory: Option<PathBuf>,
}

impl SecretsConfig {
    /// Validates what the types cannot express.
    ///
    /// # Errors
    /// A path is not absolute; the error names the key.
    pub(super) fn check(&self) -> Result<()> {
        for (key, path) in [("file", &self.file), ("directory", &self.directory)] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                let path = path.display().to_string();
                bail!("secrets.{key}: {path:?}: is not an absolute path");
            }
        }
        Ok(())
    }

    /// Where the operator's secrets are.
    pub(super) fn sources(&self) -> SecretSources {
        SecretSources { file: self.file.clone(), directory: self.directory.clone() }
    }
}
