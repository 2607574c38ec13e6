//! Sandboxes whose interfaces are in different network namespaces, with the same name, the same
//! index and the same addresses, have independent policies.

use std::sync::Arc;

use policy_testbed::{
    network::namespaced_sandbox::NamespacedSandbox,
    probe::{self, ProbeKind, ProbeResult},
    test_servers,
    testbed::{OrFail as _, SharedTestbed, Testbed, parse_ip},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

fn apply_in_namespace(stage: &Arc<Testbed>, slot: &NamespacedSandbox, network: Value) {
    let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
    let answer = stage.request("PUT", &path, &slot.sandbox_spec(&json!({ "network": network })));
    assert_eq!(answer.status, 200, "{}", answer.body);
}

fn status_in_namespace(stage: &Arc<Testbed>, slot: &NamespacedSandbox) -> Value {
    let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
    stage.request("GET", &path, &Value::Null).json()
}

fn probe_tcp(slot: &NamespacedSandbox, address: &str) -> ProbeResult {
    probe::probe(
        &slot.sandbox.namespace,
        ProbeKind::Tcp(test_servers::ECHO_PORT),
        parse_ip(address),
    )
}

#[test]
fn equal_sandboxes_in_two_namespaces_keep_their_own_policies() {
    let stage = TESTBED.testbed();
    let one = NamespacedSandbox::build("twinone").or_fail("building a slot");
    let other = NamespacedSandbox::build("twinother").or_fail("building a slot");
    let index = |slot: &NamespacedSandbox| {
        slot.namespace.ifindex(&slot.sandbox.interface).or_fail("an index")
    };
    assert_eq!(index(&one), index(&other));
    assert_eq!(one.sandbox.addresses(), other.sandbox.addresses());

    apply_in_namespace(&stage, &one, json!({ "denyOut": ["8.8.8.8"] }));
    apply_in_namespace(&stage, &other, json!({ "denyOut": ["1.1.1.1", "2001:db8:1::1"] }));
    for (slot, allowed, denied) in [(&one, "1.1.1.1", "8.8.8.8"), (&other, "8.8.8.8", "1.1.1.1")] {
        assert_eq!(probe_tcp(slot, allowed), ProbeResult::Answered, "{allowed}");
        assert_eq!(probe_tcp(slot, denied), ProbeResult::Refused, "{denied}");
        let denied = &status_in_namespace(&stage, slot)["counters"]["deny_out"]["packets"];
        assert_eq!(*denied, 1, "each counts its own");
    }
    assert_eq!(probe_tcp(&one, "2001:db8:1::1"), ProbeResult::Answered);
    assert_eq!(probe_tcp(&other, "2001:db8:1::1"), ProbeResult::Refused);
}

#[test]
fn policies_in_other_namespaces_survive_the_agent() {
    let stage = Testbed::with_config("");
    let slot = NamespacedSandbox::build("survivor").or_fail("building a slot");
    apply_in_namespace(&stage, &slot, json!({ "denyOut": ["8.8.8.8"] }));
    stage.agent_mut().kill().or_fail("killing the agent");
    assert_eq!(probe_tcp(&slot, "8.8.8.8"), ProbeResult::Refused);
    stage.restart_agent();
    assert_eq!(status_in_namespace(&stage, &slot)["status"], "enforcing");
    assert_eq!(probe_tcp(&slot, "8.8.8.8"), ProbeResult::Refused);
    apply_in_namespace(&stage, &slot, json!({ "denyOut": ["1.1.1.1"] }));
    assert_eq!(
        (probe_tcp(&slot, "8.8.8.8"), probe_tcp(&slot, "1.1.1.1")),
        (ProbeResult::Answered, ProbeResult::Refused)
    );
}

#[test]
fn a_namespace_that_goes_takes_nothing_with_it() {
    let stage = TESTBED.testbed();
    let stays = NamespacedSandbox::build("stays").or_fail("building a slot");
    let goes = NamespacedSandbox::build("goes").or_fail("building a slot");
    apply_in_namespace(&stage, &stays, json!({ "denyOut": ["8.8.8.8"] }));
    apply_in_namespace(&stage, &goes, json!({ "denyOut": ["8.8.8.8"] }));
    drop(goes);
    let gone = || {
        let goes = stage.request("GET", "/agent/v1/sandboxes/goes", &Value::Null).json();
        (goes["status"] != "enforcing").then_some(())
    };
    eventually("the agent notices that the namespace is gone", gone).or_fail("removing it");
    assert_eq!(probe_tcp(&stays, "8.8.8.8"), ProbeResult::Refused);
    apply_in_namespace(&stage, &stays, json!({ "denyOut": ["1.1.1.1"] }));
    assert_eq!(probe_tcp(&stays, "1.1.1.1"), ProbeResult::Refused);
    let deleted = stage.request("DELETE", "/agent/v1/sandboxes/goes", &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.body);
}

#[test]
fn an_invalid_namespace_is_an_error_that_names_it() {
    let stage = TESTBED.testbed();
    let slot = NamespacedSandbox::build("wrong").or_fail("building a slot");
    for netns in ["/run/netns/no-such-namespace", "/etc/hostname", "relative"] {
        let mut spec = slot.sandbox_spec(&json!({}));
        spec["netns"] = json!(netns);
        let answer = stage.request("PUT", "/agent/v1/sandboxes/wrong", &spec);
        assert_eq!(answer.status, 400, "{netns}: {}", answer.body);
        assert!(answer.body.contains("netns") && answer.body.contains(netns), "{}", answer.body);
    }
}
