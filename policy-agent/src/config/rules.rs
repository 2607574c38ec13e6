//! `[rules]`: headers that the agent sets in requests of sandboxes (`network.rules`).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The settings of `[rules]`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RulesConfig {
    /// Certificates (PEM) that are trusted besides the system's, for servers of names with rules.
    pub extra_roots: Option<PathBuf>,
}
