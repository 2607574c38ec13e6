//! Signals.

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use policy_tests::{
    patience::eventually,
    stage::{OrFail as _, Stage},
};

#[test]
fn a_hang_up_changes_nothing_and_is_told() {
    let (stage, sandbox) = Stage::with_sandbox();
    let pid = stage.agent().pid().or_fail("the agent's process");
    for times in 1..=2 {
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).or_fail("signalling");
        let told = || (stage.agent().log().matches("SIGHUP").count() == times).then_some(());
        eventually("the agent says so", told).or_fail("reading the log");
    }
    assert!(stage.agent().is_healthy());
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.is_refused("8.8.8.8");
    stage.stop();
}
