//! Names that are unique across runs and across the networks of a run.

use std::{
    io, process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use tempfile::TempDir;

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);
static NAME_PREFIX: OnceLock<&'static str> = OnceLock::new();

/// Replaces the prefix `policy-test` of this process's names. Call it before the first name is
/// created.
pub fn set_name_prefix(prefix: &'static str) {
    let _ = NAME_PREFIX.set(prefix);
}

/// Returns `policy-test-<pid>-<n>-<role>`.
pub fn unique_name(role: &str) -> String {
    let prefix = NAME_PREFIX.get_or_init(|| "policy-test");
    let n = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{n}-{role}", process::id())
}

/// Creates a temporary directory whose name begins with a unique name for this role.
///
/// # Errors
/// The directory cannot be created.
pub fn unique_directory(role: &str) -> io::Result<TempDir> {
    tempfile::Builder::new().prefix(&unique_name(role)).tempdir()
}
