//! Things that break: the disk, the state on it, the descriptors, the memory, the resolver, the clients. Nothing
//! opens, what is allowed goes on, and when the fault is gone everything works again.
//!
//! `docs/reliability.md` has the figures; `--nocapture` shows those of a run.

mod clients;
mod descriptors;
mod disk;
mod memory;
mod resolver;
mod state_files;
mod updates;

use std::time::{Duration, Instant};

use policy_tests::stage::{Guest, OrFail as _};

/// Shows how long something took, for the page with the figures.
fn took(what: &str, since: Instant) -> Duration {
    let took = since.elapsed();
    eprintln!("took | {what} | {took:.1?}");
    took
}

/// Kills the agent of a sandbox and starts it again.
#[track_caller]
fn restart(sandbox: &Guest) {
    sandbox.stage.kill();
    sandbox.stage.restart();
}

/// The file in which a sandbox is kept.
fn file_of(sandbox: &Guest) -> std::path::PathBuf {
    sandbox.stage.agent().state_dir().join(format!("sandboxes/{}.json", sandbox.id))
}

/// The policy can be changed, and the change is enforced.
#[track_caller]
fn can_be_changed(sandbox: &Guest) {
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
    let kept = std::fs::read_to_string(file_of(sandbox)).or_fail("reading the state");
    assert!(kept.contains("8.8.8.9"), "{kept}");
}
