//! Names that no other run and no other world of this run has.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

static NEXT_NUMBER: AtomicU32 = AtomicU32::new(0);
static NAME_PREFIX: OnceLock<&'static str> = OnceLock::new();

/// Gives the names of this process another beginning than `policy-test`, before the first is made.
pub fn set_name_prefix(prefix: &'static str) {
    let _ = NAME_PREFIX.set(prefix);
}

/// `policy-test-<pid>-<n>-<role>`.
pub fn unique_name(role: &str) -> String {
    let prefix = NAME_PREFIX.get_or_init(|| "policy-test");
    let n = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{n}-{role}", process::id())
}
