//! Names that no other run and no other world of this run has.

use std::{
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

static NEXT: AtomicU32 = AtomicU32::new(0);
static PREFIX: OnceLock<&'static str> = OnceLock::new();

/// Gives the names of this process another beginning than `policy-test`, before the first is made.
pub fn names_begin_with(prefix: &'static str) {
    let _ = PREFIX.set(prefix);
}

/// `policy-test-<pid>-<n>-<role>`.
pub fn unique(role: &str) -> String {
    let prefix = PREFIX.get_or_init(|| "policy-test");
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{n}-{role}", process::id())
}
