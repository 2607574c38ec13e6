//! Addresses that belong to another sandbox later.

use policy_tests::{
    probe, server,
    stage::{OrFail as _, Stage},
};
use serde_json::{Value, json};

/// What was let in for the old sandbox is no way out for the new one.
#[test]
fn the_successor_inherits_neither_policy_nor_connections() {
    let (stage, sandbox) = Stage::with_sandbox();
    let servers = server::Servers::start(&sandbox.inside, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let to = (sandbox.identity.v4(), server::ECHO).into();
    let mut stream = probe::connect(&stage.world.internet, to).or_fail("connecting");
    probe::echo(&mut stream, b"to the old sandbox").or_fail("before");
    sandbox.delete();
    let mut spec = sandbox.spec(&json!({ "network": { "denyOut": ["0.0.0.0/0"] } }));
    spec["sandboxID"] = json!("successor");
    let answer = stage.request("PUT", "/agent/v1/sandboxes/successor", &spec);
    assert_eq!(answer.code, 200, "{}", answer.body);
    let silence = probe::echo(&mut stream, b"to the new one");
    assert!(silence.is_err(), "the answer went out on the old sandbox's connection");
    sandbox.is_refused("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
    let counters = stage.request("GET", "/agent/v1/sandboxes/successor", &Value::Null).json();
    assert_eq!(counters["counters"]["reply"], Value::Null, "{counters}");
}

/// Two sandboxes swap their addresses: each keeps its own policy, and speaks for itself only.
#[test]
fn addresses_that_move_from_one_sandbox_to_another() {
    let (stage, sandbox) = Stage::with_sandbox();
    let other = stage.sandbox();
    other.may_only_reach(&["8.8.8.9"]);
    let mut spec = other.spec(&json!({ "network": { "allowOut": ["8.8.8.9"] } }));
    spec["addresses"] = json!(sandbox.addresses());
    spec["network"]["denyOut"] = json!(["0.0.0.0/0"]);
    let path = format!("/agent/v1/sandboxes/{}", other.id);
    let answer = stage.request("PUT", &path, &spec);
    assert_eq!(answer.code, 200, "{}", answer.body);
    // It still sends from its old addresses, which are not its own any more.
    other.is_ignored("8.8.8.9");
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
    other.may_only_reach(&["8.8.8.9"]);
    other.reaches("8.8.8.9");
    other.is_refused("8.8.8.8");
}
