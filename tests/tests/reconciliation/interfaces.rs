//! Interfaces that vanish, come back as others, and move to another namespace.

use std::time::Instant;

use policy_tests::{
    stage::{OPENED, OrFail as _, Stage},
    world::Namespace,
};
use serde_json::json;

use super::{becomes, is_shut_again};

#[test]
fn one_that_comes_back_with_another_index() {
    let (stage, sandbox) = Stage::with_sandbox();
    let host = &stage.world.host;
    let index = || host.ifindex(&sandbox.interface).or_fail("an index");
    let mut before = index();
    for round in 0..3 {
        host.ip(&format!("link del {}", sandbox.interface)).or_fail("deleting it");
        becomes(&sandbox, "interface missing");
        let begin = Instant::now();
        sandbox.plug_into_as(host, 2000 + round).or_fail("making it again");
        sandbox.route_to(host).or_fail("routing again");
        assert_ne!(index(), before);
        before = index();
        is_shut_again(&sandbox, "an interface comes back", begin);
    }
}

/// Gone and back before anybody looks: it is another interface under the old name and index.
#[test]
fn one_that_is_replaced_between_two_looks() {
    let (stage, sandbox) = Stage::with_sandbox();
    let host = &stage.world.host;
    for _ in 0..3 {
        host.ip(&format!("link del {}", sandbox.interface)).or_fail("deleting it");
        let begin = Instant::now();
        sandbox.plug_into(host).or_fail("making it again");
        sandbox.route_to(host).or_fail("routing again");
        is_shut_again(&sandbox, "an interface is replaced", begin);
    }
}

/// Under another name it is not this sandbox's any more as far as the agent can tell; what is attached
/// goes with it.
#[test]
fn one_that_is_renamed_and_renamed_back() {
    let (stage, sandbox) = Stage::with_sandbox();
    let host = &stage.world.host;
    let name = &sandbox.interface;
    let tally = sandbox.tally();
    for _ in 0..3 {
        host.ip(&format!("link set {name} name aside")).or_fail("renaming it");
        becomes(&sandbox, "interface missing");
        let begin = Instant::now();
        host.ip(&format!("link set aside name {name}")).or_fail("renaming it back");
        is_shut_again(&sandbox, "an interface is renamed back", begin);
    }
    tally.is_clean("an interface is renamed and renamed back");
}

#[test]
fn one_that_moves_to_another_namespace() {
    let (stage, sandbox) = Stage::with_sandbox();
    let (host, name) = (&stage.world.host, &sandbox.interface);
    let elsewhere = Namespace::create("elsewhere").or_fail("a namespace");
    host.ip(&format!("link set {name} netns {}", elsewhere.name())).or_fail("moving it");
    becomes(&sandbox, "interface missing");
    let begin = Instant::now();
    elsewhere.ip(&format!("link set {name} netns {}", host.name())).or_fail("moving it back");
    host.ip(&format!("link set {name} up")).or_fail("up");
    sandbox.address_host_end(host).or_fail("routing again");
    is_shut_again(&sandbox, "an interface moves away and back", begin);
    // And it follows when it is told where.
    host.ip(&format!("link set {name} netns {}", elsewhere.name())).or_fail("moving it");
    let network = json!({ "denyOut": ["0.0.0.0/0"], "allowOut": OPENED });
    let there = json!({ "netns": elsewhere.path(), "network": network });
    sandbox.configure(&there);
    becomes(&sandbox, "enforcing");
    drop(elsewhere);
    becomes(&sandbox, "interface missing");
}
