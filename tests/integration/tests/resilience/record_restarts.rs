//! The record of flows outlives the agent.

use policy_testbed::{
    testbed::{OrFail as _, SharedTestbed},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[test]
fn what_was_denied_is_still_known_after_a_restart() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.probe_udp("8.8.8.8", 4711);
    let denial = || -> Option<Value> {
        let list = sandbox.testbed.cli(&["denials", &sandbox.id, "-o", "json"]).json();
        list.as_array()?.iter().find(|entry| entry["port"] == 4711).cloned()
    };
    let before = eventually("the denial", denial).or_fail("looking in the record");
    sandbox.testbed.stop_agent();
    sandbox.testbed.restart_agent();
    assert_eq!(denial(), Some(before.clone()));
    sandbox.probe_udp("8.8.8.8", 4711);
    let counted = eventually("another denial", || {
        denial().filter(|entry| entry["packets"].as_u64() > before["packets"].as_u64())
    });
    assert_eq!(counted.or_fail("looking in the record")["firstSeen"], before["firstSeen"]);
}
