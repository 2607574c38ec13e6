//! Interfaces that are deleted, replaced, renamed, and moved to another namespace.

use std::time::Instant;

use policy_testbed::{
    network::NetworkNamespace,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, Testbed},
};
use serde_json::json;

use super::{wait_for_status, wait_until_enforced};

#[test]
fn an_interface_that_comes_back_with_another_index() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let host = &stage.network.host;
    let index = || host.ifindex(&sandbox.interface).or_fail("an index");
    let mut before = index();
    for round in 0..3 {
        host.ip_batch(&format!("link del {}", sandbox.interface)).or_fail("deleting it");
        wait_for_status(&sandbox, "interface missing");
        let begin = Instant::now();
        sandbox.create_veth_with_index(host, 2000 + round).or_fail("making it again");
        sandbox.route_through(host).or_fail("routing again");
        assert_ne!(index(), before);
        before = index();
        wait_until_enforced(&sandbox, "an interface comes back", begin);
    }
}

/// Replaced between two checks: a different interface has the old name and index.
#[test]
fn an_interface_replaced_between_two_checks() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let host = &stage.network.host;
    for _ in 0..3 {
        host.ip_batch(&format!("link del {}", sandbox.interface)).or_fail("deleting it");
        let begin = Instant::now();
        sandbox.create_veth(host).or_fail("making it again");
        sandbox.route_through(host).or_fail("routing again");
        wait_until_enforced(&sandbox, "an interface is replaced", begin);
    }
}

/// Under another name, the agent no longer recognises the interface as this sandbox's. Its programs
/// stay attached to it.
#[test]
fn an_interface_renamed_and_renamed_back() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let host = &stage.network.host;
    let name = &sandbox.interface;
    let tally = sandbox.start_counted_flood();
    for _ in 0..3 {
        host.ip_batch(&format!("link set {name} name aside")).or_fail("renaming it");
        wait_for_status(&sandbox, "interface missing");
        let begin = Instant::now();
        host.ip_batch(&format!("link set aside name {name}")).or_fail("renaming it back");
        wait_until_enforced(&sandbox, "an interface is renamed back", begin);
    }
    tally.assert_no_leak_or_loss("an interface is renamed and renamed back");
}

#[test]
fn an_interface_moved_to_another_namespace() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let (host, name) = (&stage.network.host, &sandbox.interface);
    let elsewhere = NetworkNamespace::create("elsewhere").or_fail("a namespace");
    host.ip_batch(&format!("link set {name} netns {}", elsewhere.name())).or_fail("moving it");
    wait_for_status(&sandbox, "interface missing");
    let begin = Instant::now();
    elsewhere.ip_batch(&format!("link set {name} netns {}", host.name())).or_fail("moving it back");
    host.ip_batch(&format!("link set {name} up")).or_fail("up");
    sandbox.assign_gateway_addresses(host).or_fail("routing again");
    wait_until_enforced(&sandbox, "an interface moves away and back", begin);
    // The gates are attached there once the configuration names the new namespace.
    host.ip_batch(&format!("link set {name} netns {}", elsewhere.name())).or_fail("moving it");
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ALLOWED_ADDRESSES });
    let there = json!({ "netns": elsewhere.path(), "network": network });
    sandbox.apply_config(&there);
    wait_for_status(&sandbox, "enforcing");
    drop(elsewhere);
    wait_for_status(&sandbox, "interface missing");
}
