//! Switches after the question mark of a path.

use serde::Deserialize;

/// `?all`, `?all=true` and `?all=1` mean the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum QueryFlag {
    /// No.
    #[default]
    #[serde(rename = "false", alias = "0")]
    Off,
    /// Yes.
    #[serde(rename = "true", alias = "1", alias = "")]
    On,
}
