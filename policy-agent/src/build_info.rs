//! Which agent this is: its version, its commit, and the ABI of its pins.

use std::sync::OnceLock;

use policy_common::ABI_VERSION;

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, or `development`.
pub const COMMIT: &str = env!("POLICY_AGENT_COMMIT");

/// Version, commit and ABI as one line.
#[must_use]
pub fn version_line() -> &'static str {
    static LINE: OnceLock<String> = OnceLock::new();
    LINE.get_or_init(|| format!("{VERSION} (commit {COMMIT}, ABI {ABI_VERSION})"))
}
