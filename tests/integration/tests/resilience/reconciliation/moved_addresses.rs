//! Addresses that later belong to another sandbox.

use std::time::Duration;

use policy_testbed::{
    probe, test_servers,
    testbed::{OrFail as _, Testbed},
};
use serde_json::{Value, json};

/// Inbound connections of the old sandbox allow nothing for the new one.
#[test]
fn the_successor_inherits_neither_policy_nor_connections() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let servers = test_servers::TestServers::start(&sandbox.namespace, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let to = (sandbox.addressing.v4(), test_servers::ECHO_PORT).into();
    let mut stream = probe::connect(&stage.network.internet, to).or_fail("connecting");
    probe::echo(&mut stream, b"to the old sandbox").or_fail("before");
    sandbox.delete();
    let mut spec = sandbox.sandbox_spec(&json!({ "network": { "denyOut": ["0.0.0.0/0"] } }));
    spec["sandboxID"] = json!("successor");
    let answer = stage.request("PUT", "/agent/v1/sandboxes/successor", &spec);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let brief = Some(Duration::from_millis(500));
    stream.set_read_timeout(brief).or_fail("a timeout");
    let silence = probe::echo(&mut stream, b"to the new one");
    assert!(silence.is_err(), "the answer went out on the old sandbox's connection");
    sandbox.assert_refused("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
    let counters = stage.request("GET", "/agent/v1/sandboxes/successor", &Value::Null).json();
    assert_eq!(counters["counters"]["reply"], Value::Null, "{counters}");
}

/// Two sandboxes swap their addresses. Each keeps its own policy, and can only send from its own
/// addresses.
#[test]
fn addresses_that_move_from_one_sandbox_to_another() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let other = stage.add_sandbox();
    let networks = [json!({}), json!({ "allowOut": ["8.8.8.9"], "denyOut": ["0.0.0.0/0"] })];
    let give = |addresses: [Value; 2]| {
        let specs = [&sandbox, &other].into_iter().zip(&networks).zip(addresses);
        let specs = specs.map(|((guest, network), addresses)| {
            let mut spec = guest.sandbox_spec(&json!({ "network": network }));
            spec["addresses"] = addresses;
            spec
        });
        let specs: Vec<Value> = specs.collect();
        let answer = stage.request("PUT", "/agent/v1/sandboxes", &json!(specs));
        let said = answer.json();
        let each = said.as_array().or_fail("an answer for each");
        assert!(each.iter().all(|one| one["code"].is_null()), "{}", answer.body);
    };
    let own = [json!(sandbox.addresses()), json!(other.addresses())];
    let [one, another] = own.clone();
    give(own);
    other.assert_reaches("8.8.8.9");
    give([another.clone(), one.clone()]);
    // They still send from their old addresses, which no longer belong to them.
    sandbox.assert_ignored("8.8.8.8");
    other.assert_ignored("8.8.8.9");
    give([one, another]);
    sandbox.assert_reaches("8.8.8.8");
    other.assert_reaches("8.8.8.9");
    other.assert_refused("8.8.8.8");
}
