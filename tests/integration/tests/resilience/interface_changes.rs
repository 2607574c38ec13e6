//! Interfaces that are deleted, recreated, and moved to another sandbox.

use policy_testbed::{
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

#[test]
fn a_deleted_sandbox_is_open_and_forgotten() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.assert_refused("8.8.8.9");
    sandbox.delete();
    // The interface is the host's again, which routes everything.
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_reaches("10.99.0.1");
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    assert_eq!(stage.request("GET", &path, &Value::Null).status, 404);
    stage.kill_agent();
    stage.restart_agent();
    assert_eq!(stage.request("GET", &path, &Value::Null).status, 404, "for good");
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let interface = &sandbox.interface;
    stage.network.host.ip_batch(&format!("link del {interface}")).or_fail("deleting the interface");
    eventually("the agent notices", || {
        (sandbox.status()["status"] == "interface missing").then_some(())
    })
    .or_fail("deleting the interface");
    sandbox.create_veth(&stage.network.host).or_fail("plugging in again");
    sandbox.route_through(&stage.network.host).or_fail("routing again");
    eventually("the agent attaches it", || {
        (sandbox.status()["status"] == "enforcing").then_some(())
    })
    .or_fail("making the interface again");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn an_interface_that_came_back_while_no_agent_ran_is_attached_at_start() {
    let (stage, sandbox) = Testbed::with_sandbox();
    stage.kill_agent();
    let interface = &sandbox.interface;
    stage.network.host.ip_batch(&format!("link del {interface}")).or_fail("deleting the interface");
    sandbox.create_veth(&stage.network.host).or_fail("plugging in again");
    sandbox.route_through(&stage.network.host).or_fail("routing again");
    stage.restart_agent();
    assert_eq!(sandbox.status()["status"], "enforcing");
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn another_sandbox_can_take_over_an_interface() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.delete();
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.9"] });
    let mut spec = sandbox.sandbox_spec(&json!({ "network": network }));
    spec["sandboxID"] = json!("successor");
    let answer = stage.request("PUT", "/agent/v1/sandboxes/successor", &spec);
    assert_eq!(answer.status, 200, "{}", answer.body);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
    let successor = stage.request("GET", "/agent/v1/sandboxes/successor", &Value::Null).json();
    assert_eq!(successor["counters"]["deny_out"]["packets"], 3, "it counts from zero");
}
