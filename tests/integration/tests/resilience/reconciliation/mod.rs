//! Interfaces, addresses, pins and foreign programs that change while the agent runs: the agent
//! restores enforcement as requested, and reports what it could not enforce.

mod changed_interfaces;
mod clsact_filters;
mod foreign_programs;
mod moved_addresses;
mod pass_all_program;
mod removed_pins;

use std::{sync::Arc, time::Instant};

use policy_testbed::{
    probe::{self, ProbeKind, ProbeResult},
    test_servers,
    testbed::{OrFail as _, TestSandbox, Testbed, parse_ip},
    wait::eventually,
};

/// The warning about gates that were detached, logged after they are attached again.
const UNENFORCED_WARNING: &str = "what it sent meanwhile was not judged";

/// Waits until a sandbox has this status.
#[track_caller]
fn wait_for_status(sandbox: &TestSandbox, status: &str) {
    let seen = || (sandbox.status()["status"] == status).then_some(());
    let became = eventually(&format!("{} is {status}", sandbox.id), seen);
    became.or_fail(&sandbox.status().to_string());
}

/// Waits until the sandbox is refused what it may not reach. Prints the time since `begin`.
#[track_caller]
fn wait_until_enforced(sandbox: &TestSandbox, fault: &str, begin: Instant) {
    let shut = || {
        (sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT) == ProbeResult::Refused)
            .then_some(())
    };
    eventually("it is shut again", shut).or_fail(fault);
    eprintln!("took | {fault}: until it is enforced again | {:.1?}", begin.elapsed());
    wait_for_status(sandbox, "enforcing");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

/// Waits until the guard drops what the sandbox sends past its programs, also to destinations that
/// it may reach.
#[track_caller]
fn wait_until_guarded(sandbox: &TestSandbox) {
    let how = ProbeKind::Tcp(test_servers::ECHO_PORT);
    let silent = || {
        let seen = probe::probe_expecting_silence(&sandbox.namespace, how, parse_ip("8.8.8.8"));
        (seen == ProbeResult::NoReply).then_some(())
    };
    eventually("its packets come past its programs", silent).or_fail("taking them away");
}

/// Waits until the agent's log contains a text.
#[track_caller]
fn wait_for_log(stage: &Arc<Testbed>, what: &str) {
    wait_for_log_times(stage, what, 1);
}

/// Waits until the agent's log contains a text this many times.
#[track_caller]
fn wait_for_log_times(stage: &Arc<Testbed>, what: &str, times: usize) {
    let log = || stage.agent().log_tail();
    let said = eventually(what, || (log().matches(what).count() >= times).then_some(()));
    said.or_fail(&log());
}
