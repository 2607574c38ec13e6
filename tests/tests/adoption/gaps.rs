//! The same agent again, under a flood.

use std::{path::Path, time::Instant};

use policy_tests::{
    agent::request_at,
    probe,
    stage::{Guest, OPENED, OrFail as _, Stage},
};
use serde_json::json;

/// How often each.
const TIMES: usize = 5;

#[test]
fn killed_and_started_again() {
    over_and_over("kill -9 and start", |stage| stage.kill());
}

#[test]
fn stopped_and_started_again() {
    // A start always loads its programs anew: this is an upgrade to the same ABI, too.
    over_and_over("clean stop and start, or upgrade with the same ABI", |stage| stage.stop());
}

fn over_and_over(fault: &str, end: impl Fn(&Stage)) {
    let (stage, sandbox) = Stage::with_sandbox();
    let mut stream = sandbox.connection(OPENED[0]);
    let tally = sandbox.tally();
    for _ in 0..TIMES {
        end(&stage);
        sandbox.reaches("8.8.8.8");
        sandbox.is_refused("8.8.8.9");
        probe::echo(&mut stream, b"without an agent").or_fail("an open connection");
        let begin = Instant::now();
        stage.restart();
        eprintln!("took | {fault}: start | {:.1?}", begin.elapsed());
        probe::echo(&mut stream, b"with an agent").or_fail("an open connection");
    }
    tally.is_clean(fault);
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
}

/// It dies at any point of a change: what the API said is done is in force, and the rest is in force
/// or not, but never half.
#[test]
fn killed_amid_changes() {
    let (stage, sandbox) = Stage::with_sandbox();
    let tally = sandbox.tally();
    let socket = stage.agent().socket();
    for round in 0..TIMES * 2 {
        std::thread::scope(|scope| {
            scope.spawn(|| change_until_it_is_gone(&sandbox, &socket, round));
            sandbox.reaches("8.8.8.8");
            stage.kill();
        });
        sandbox.reaches("8.8.8.8");
        stage.restart();
        assert_eq!(sandbox.status()["status"], "enforcing");
    }
    tally.is_clean("kill -9 amid changes");
}

/// Changes that keep what is [`OPENED`]; the agent may die under any of them.
fn change_until_it_is_gone(sandbox: &Guest, socket: &Path, round: usize) {
    for number in (0..200).cycle() {
        let other = format!("203.0.{}.{number}", 114 + round);
        let network =
            json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [OPENED[0], OPENED[1], other] });
        let spec = sandbox.spec(&json!({ "network": network })).to_string();
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        match request_at(socket, "PUT", &path, &spec) {
            Ok(answer) => assert_eq!(answer.code, 200, "{}", answer.body),
            Err(_) => return, // it is gone
        }
    }
}
