//! How large `network.rules` may be. The operator may change it.

/// Limits of one sandbox's `network.rules`: `[rules]` in the agent's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleLimits {
    /// Domains.
    pub domains: usize,
    /// Headers of one domain.
    pub headers: usize,
    /// Bytes of a header's value, with its placeholders.
    pub value_bytes: usize,
    /// Different secrets that the headers of one domain refer to.
    pub secrets: usize,
}

impl RuleLimits {
    /// For rules that were accepted under limits that may have changed.
    pub const NONE: Self = Self {
        domains: usize::MAX,
        headers: usize::MAX,
        value_bytes: usize::MAX,
        secrets: usize::MAX,
    };
}

impl Default for RuleLimits {
    /// E2B's limits.
    fn default() -> Self {
        Self { domains: 10, headers: 20, value_bytes: 2048, secrets: 32 }
    }
}
