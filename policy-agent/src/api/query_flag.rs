//! Boolean query parameters.

use serde::Deserialize;

/// A boolean query parameter: `?all`, `?all=true` and `?all=1` are equivalent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum QueryFlag {
    /// `false` or `0`.
    #[default]
    #[serde(rename = "false", alias = "0")]
    Off,
    /// `true`, `1`, or no value.
    #[serde(rename = "true", alias = "1", alias = "")]
    On,
}
