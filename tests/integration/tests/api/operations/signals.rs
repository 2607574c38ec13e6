//! The agent's reaction to signals.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use policy_testbed::{
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};

#[test]
fn a_sighup_without_a_change_changes_nothing_and_is_logged() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    for times in 1..=2 {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).or_fail("signalling");
        let told = || (stage.agent().log_tail().matches("SIGHUP").count() == times).then_some(());
        eventually("the agent says so", told).or_fail("reading the log");
    }
    assert!(stage.agent().is_healthy());
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_refused("8.8.8.8");
    stage.stop_agent();
}
