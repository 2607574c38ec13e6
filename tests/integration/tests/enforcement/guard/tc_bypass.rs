//! A container that administers its own network makes the kernel skip TC on the host's side.

use policy_testbed::{
    network::{bridged_sandbox, namespaced_sandbox::NamespacedSandbox, tc_bypass},
    probe::{self, ProbeKind, ProbeResult},
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

use super::{
    GUARD_NFTABLES, GUARD_OFF, assert_reaches_everything, assert_reaches_nothing, deny_all,
    guarded_packets, nftables_in,
};

#[test]
fn without_the_guard_it_reaches_everything() {
    let stage = Testbed::with_config(GUARD_OFF);
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    assert_reaches_nothing(&sandbox.namespace);
    tc_bypass::bypass_host_tc(&sandbox.namespace).or_fail("bypassing TC");
    assert_reaches_everything(&sandbox.namespace);
}

fn assert_guard_holds(config: &str) {
    let stage = Testbed::with_config(config);
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    tc_bypass::bypass_host_tc(&sandbox.namespace).or_fail("bypassing TC");
    assert_reaches_nothing(&sandbox.namespace);
    stage.kill_agent();
    assert_reaches_nothing(&sandbox.namespace);
    stage.restart_agent();
    assert_reaches_nothing(&sandbox.namespace);
    tc_bypass::end_bypass(&sandbox.namespace).or_fail("ending the bypass");
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.9"] }));
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn the_guard_drops_what_it_sends() {
    assert_guard_holds("");
}

#[test]
fn the_guard_of_nftables_drops_what_it_sends() {
    assert_guard_holds(GUARD_NFTABLES);
}

#[test]
fn the_guard_drops_what_it_sends_with_clsact_filters() {
    assert_guard_holds("[dataplane]\nattach = \"clsact\"");
}

#[test]
fn what_the_guard_drops_is_counted() {
    let stage = Testbed::with_config("");
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    assert_reaches_nothing(&sandbox.namespace);
    assert_eq!(guarded_packets(&sandbox), 0);
    tc_bypass::bypass_host_tc(&sandbox.namespace).or_fail("bypassing TC");
    assert_reaches_nothing(&sandbox.namespace);
    // On older kernels, nftables guards and does not tell.
    let counted = guarded_packets(&sandbox) > 0;
    assert!(counted || nftables_in(&stage.network.host).contains("table inet guard_"));
}

#[test]
fn the_guard_covers_interfaces_in_other_namespaces() {
    let stage = Testbed::with_config("");
    let slot = NamespacedSandbox::build("bypasser").or_fail("building a slot");
    let spec = slot.sandbox_spec(&json!({ "network": { "denyOut": ["0.0.0.0/0"] } }));
    let answer = stage.request("PUT", "/agent/v1/sandboxes/bypasser", &spec);
    assert_eq!(answer.status, 200, "{}", answer.body);
    tc_bypass::bypass_host_tc(&slot.sandbox.namespace).or_fail("bypassing TC");
    assert_reaches_nothing(&slot.sandbox.namespace);
    stage.kill_agent();
    stage.restart_agent();
    assert_reaches_nothing(&slot.sandbox.namespace);
    let deleted = stage.request("DELETE", "/agent/v1/sandboxes/bypasser", &Value::Null);
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    assert_eq!(nftables_in(&slot.namespace), "");
    assert_reaches_everything(&slot.sandbox.namespace);
}

#[test]
fn the_guard_follows_an_interface_that_becomes_a_port() {
    let stage = Testbed::with_config("");
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    let host = &stage.network.host;
    assert!(!nftables_in(host).contains("table bridge"));
    host.ip_batch(&format!("link add br0 type bridge\nlink set {} master br0", sandbox.interface))
        .or_fail("making a bridge");
    let guarded = || nftables_in(host).contains("table bridge guard_").then_some(());
    eventually("the bridge's ports are guarded", guarded).or_fail("waiting");
}

/// Whether the neighbour on the bridge answers a sandbox that bypasses TC.
fn reaches_neighbor_on_bridge(config: &str) -> bool {
    let stage = Testbed::without_agent(config);
    let (sandbox, _neighbor) =
        bridged_sandbox::bridged_sandbox_with_neighbor(&stage.network).or_fail("a bridge");
    let neighbor = sandbox.addressing.gateway_v4().into();
    let ping = || probe::probe_expecting_silence(&sandbox.namespace, ProbeKind::Ping, neighbor);
    eventually("the bridge forwards", || (ping() == ProbeResult::Answered).then_some(()))
        .or_fail("waiting");
    stage.restart_agent();
    let spec = sandbox.sandbox_spec(&json!({ "network": { "denyOut": ["0.0.0.0/0"] } }));
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let answer = stage.request("PUT", &path, &spec);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_ne!(ping(), ProbeResult::Answered);
    tc_bypass::bypass_host_tc(&sandbox.namespace).or_fail("bypassing TC");
    (0..10).any(|_| ping() == ProbeResult::Answered)
}

#[test]
fn the_guard_covers_ports_of_bridges() {
    assert!(reaches_neighbor_on_bridge(GUARD_OFF));
    assert!(!reaches_neighbor_on_bridge(""));
    assert!(!reaches_neighbor_on_bridge(GUARD_NFTABLES));
}
