//! Things that break: the disk, the state on it, the descriptors, the memory, the resolver, the clients. Nothing
//! opens, what is allowed goes on, and when the fault is gone everything works again.
//!
//! `docs/reliability.md` has the figures; `--nocapture` shows those of a run.

mod concurrent_updates;
mod descriptor_exhaustion;
mod disk_faults;
mod memory_exhaustion;
mod resolver_faults;
mod slow_clients;
mod state_files;

use std::time::{Duration, Instant};

use policy_testbed::testbed::{OrFail as _, TestSandbox};

/// Shows how long something took, for the page with the figures.
fn report_duration(what: &str, since: Instant) -> Duration {
    let took = since.elapsed();
    eprintln!("took | {what} | {took:.1?}");
    took
}

/// Kills the agent of a sandbox and starts it again.
#[track_caller]
fn kill_and_restart(sandbox: &TestSandbox) {
    sandbox.testbed.kill_agent();
    sandbox.testbed.restart_agent();
}

/// The file in which a sandbox is kept.
fn state_file_of(sandbox: &TestSandbox) -> std::path::PathBuf {
    sandbox.testbed.agent().state_dir().join(format!("sandboxes/{}.json", sandbox.id))
}

/// The policy can be changed, and the change is enforced.
#[track_caller]
fn assert_policy_can_change(sandbox: &TestSandbox) {
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
    let kept = std::fs::read_to_string(state_file_of(sandbox)).or_fail("reading the state");
    assert!(kept.contains("8.8.8.9"), "{kept}");
}
