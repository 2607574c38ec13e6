//! Restarts of the same agent under a flood.

use std::{path::Path, time::Instant};

use policy_testbed::{
    agent::send_request_to,
    probe,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, TestSandbox, Testbed},
};
use serde_json::json;

/// The number of repetitions of each fault.
const REPETITIONS: usize = 5;

#[test]
fn killed_and_started_again() {
    repeat_fault("kill -9 and start", |stage| stage.kill_agent());
}

#[test]
fn stopped_and_started_again() {
    // A start always loads the programs anew, so this also covers an upgrade with the same ABI.
    repeat_fault("clean stop and start, or upgrade with the same ABI", |stage| stage.stop_agent());
}

fn repeat_fault(fault: &str, end: impl Fn(&Testbed)) {
    let (stage, sandbox) = Testbed::with_sandbox();
    let mut stream = sandbox.connect_echo(ALLOWED_ADDRESSES[0]);
    let tally = sandbox.start_counted_flood();
    for _ in 0..REPETITIONS {
        end(&stage);
        sandbox.assert_reaches("8.8.8.8");
        sandbox.assert_refused("8.8.8.9");
        probe::echo(&mut stream, b"without an agent").or_fail("an open connection");
        let begin = Instant::now();
        stage.restart_agent();
        eprintln!("took | {fault}: start | {:.1?}", begin.elapsed());
        probe::echo(&mut stream, b"with an agent").or_fail("an open connection");
    }
    tally.assert_no_leak_or_loss(fault);
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
}

/// The agent is killed at an arbitrary point of an update: everything that the API has confirmed is
/// in force. The rest is in force completely or not at all.
#[test]
fn killed_amid_changes() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let tally = sandbox.start_counted_flood();
    let socket = stage.agent().socket_path();
    for round in 0..REPETITIONS * 2 {
        std::thread::scope(|scope| {
            scope.spawn(|| change_policy_until_agent_dies(&sandbox, &socket, round));
            sandbox.assert_reaches("8.8.8.8");
            stage.kill_agent();
        });
        sandbox.assert_reaches("8.8.8.8");
        stage.restart_agent();
        assert_eq!(sandbox.status()["status"], "enforcing");
    }
    tally.assert_no_leak_or_loss("kill -9 amid changes");
}

/// Applies policies that keep [`ALLOWED_ADDRESSES`] allowed until the agent dies during one of
/// them.
fn change_policy_until_agent_dies(sandbox: &TestSandbox, socket: &Path, round: usize) {
    for number in (0..200).cycle() {
        let other = format!("203.0.{}.{number}", 114 + round);
        let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [ALLOWED_ADDRESSES[0], ALLOWED_ADDRESSES[1], other] });
        let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        match send_request_to(socket, "PUT", &path, &spec) {
            Ok(answer) => assert_eq!(answer.status, 200, "{}", answer.body),
            Err(_) => return, // the agent is dead
        }
    }
}
