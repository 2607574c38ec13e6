//! Faults of the disk, the state files, descriptors, memory, the resolver and clients. No denied
//! traffic passes, allowed traffic continues, and everything works again after the fault.
//!
//! `docs/reliability.md` has the figures; `--nocapture` shows those of a run.

mod concurrent_updates;
mod descriptor_exhaustion;
mod disk_faults;
mod link_flapping;
mod memory_exhaustion;
mod resolver_faults;
mod slow_clients;
mod state_files;

use std::time::{Duration, Instant};

use policy_testbed::testbed::{OrFail as _, TestSandbox};

/// Prints how long an operation took, for `docs/reliability.md`.
fn report_duration(what: &str, since: Instant) -> Duration {
    let took = since.elapsed();
    eprintln!("took | {what} | {took:.1?}");
    took
}

/// Kills a sandbox's agent and starts it again.
#[track_caller]
fn kill_and_restart(sandbox: &TestSandbox) {
    sandbox.testbed.kill_agent();
    sandbox.testbed.restart_agent();
}

/// The state file of a sandbox.
fn state_file_of(sandbox: &TestSandbox) -> std::path::PathBuf {
    sandbox.testbed.agent().state_dir().join(format!("sandboxes/{}.json", sandbox.id))
}

/// Asserts that the policy can be updated and that the update is enforced.
#[track_caller]
fn assert_policy_can_change(sandbox: &TestSandbox) {
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
    let kept = std::fs::read_to_string(state_file_of(sandbox)).or_fail("reading the state");
    assert!(kept.contains("8.8.8.9"), "{kept}");
}
