//! Sandboxes whose interfaces stand in other network namespaces, with the same name, the same index
//! and the same addresses: they keep policies of their own.

use std::sync::Arc;

use policy_tests::{
    patience::eventually,
    probe::{self, How, Seen},
    server,
    stage::{OrFail as _, Shared, Stage, ip},
    world::slot::Slot,
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");

fn apply(stage: &Arc<Stage>, slot: &Slot, network: Value) {
    let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
    let answer = stage.request("PUT", &path, &slot.spec(&json!({ "network": network })));
    assert_eq!(answer.code, 200, "{}", answer.body);
}

fn status(stage: &Arc<Stage>, slot: &Slot) -> Value {
    let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
    stage.request("GET", &path, &Value::Null).json()
}

fn tcp(slot: &Slot, address: &str) -> Seen {
    probe::attempt(&slot.sandbox.inside, How::Tcp(server::ECHO), ip(address))
}

#[test]
fn twins_in_two_namespaces_keep_their_own_policies() {
    let stage = STAGE.stage();
    let one = Slot::build("twinone").or_fail("building a slot");
    let other = Slot::build("twinother").or_fail("building a slot");
    let index = |slot: &Slot| slot.namespace.ifindex(&slot.sandbox.interface).or_fail("an index");
    assert_eq!(index(&one), index(&other));
    assert_eq!(one.sandbox.addresses(), other.sandbox.addresses());

    apply(&stage, &one, json!({ "denyOut": ["8.8.8.8"] }));
    apply(&stage, &other, json!({ "denyOut": ["1.1.1.1", "2001:db8:1::1"] }));
    for (slot, allowed, denied) in [(&one, "1.1.1.1", "8.8.8.8"), (&other, "8.8.8.8", "1.1.1.1")] {
        assert_eq!(tcp(slot, allowed), Seen::Answered, "{allowed}");
        assert_eq!(tcp(slot, denied), Seen::Refused, "{denied}");
        let denied = &status(&stage, slot)["counters"]["deny_out"]["packets"];
        assert_eq!(*denied, 1, "each counts its own");
    }
    assert_eq!(tcp(&one, "2001:db8:1::1"), Seen::Answered);
    assert_eq!(tcp(&other, "2001:db8:1::1"), Seen::Refused);
}

#[test]
fn policies_in_other_namespaces_survive_the_agent() {
    let stage = Stage::with("");
    let slot = Slot::build("survivor").or_fail("building a slot");
    apply(&stage, &slot, json!({ "denyOut": ["8.8.8.8"] }));
    stage.agent_mut().kill().or_fail("killing the agent");
    assert_eq!(tcp(&slot, "8.8.8.8"), Seen::Refused);
    stage.restart();
    assert_eq!(status(&stage, &slot)["status"], "enforcing");
    assert_eq!(tcp(&slot, "8.8.8.8"), Seen::Refused);
    apply(&stage, &slot, json!({ "denyOut": ["1.1.1.1"] }));
    assert_eq!((tcp(&slot, "8.8.8.8"), tcp(&slot, "1.1.1.1")), (Seen::Answered, Seen::Refused));
}

#[test]
fn a_namespace_that_goes_takes_nothing_with_it() {
    let stage = STAGE.stage();
    let stays = Slot::build("stays").or_fail("building a slot");
    let goes = Slot::build("goes").or_fail("building a slot");
    apply(&stage, &stays, json!({ "denyOut": ["8.8.8.8"] }));
    apply(&stage, &goes, json!({ "denyOut": ["8.8.8.8"] }));
    drop(goes);
    let gone = || {
        let goes = stage.request("GET", "/agent/v1/sandboxes/goes", &Value::Null).json();
        (goes["status"] != "enforcing").then_some(())
    };
    eventually("the agent notices that the namespace is gone", gone).or_fail("removing it");
    assert_eq!(tcp(&stays, "8.8.8.8"), Seen::Refused);
    apply(&stage, &stays, json!({ "denyOut": ["1.1.1.1"] }));
    assert_eq!(tcp(&stays, "1.1.1.1"), Seen::Refused);
    let deleted = stage.request("DELETE", "/agent/v1/sandboxes/goes", &Value::Null);
    assert_eq!(deleted.code, 204, "{}", deleted.body);
}

#[test]
fn a_namespace_that_is_none_is_an_error_that_names_it() {
    let stage = STAGE.stage();
    let slot = Slot::build("wrong").or_fail("building a slot");
    for netns in ["/run/netns/no-such-namespace", "/etc/hostname", "relative"] {
        let mut spec = slot.spec(&json!({}));
        spec["netns"] = json!(netns);
        let answer = stage.request("PUT", "/agent/v1/sandboxes/wrong", &spec);
        assert_eq!(answer.code, 400, "{netns}: {}", answer.body);
        assert!(answer.body.contains("netns") && answer.body.contains(netns), "{}", answer.body);
    }
}
