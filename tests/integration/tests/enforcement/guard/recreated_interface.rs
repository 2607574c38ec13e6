//! An interface that is deleted and created again stays closed until its programs are attached.

use std::{fs::File, io::Write as _};

use policy_testbed::{
    testbed::{ALLOWED_ADDRESSES, OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::json;

use super::{GUARD_NFTABLES, GUARD_OFF, assert_reaches_everything, assert_reaches_nothing};

fn recreate_interface(sandbox: &TestSandbox) {
    let host = &sandbox.testbed.network.host;
    host.ip_batch(&format!("link del {}", sandbox.interface)).or_fail("deleting the interface");
    sandbox.create_veth(host).or_fail("plugging in again");
    sandbox.route_through(host).or_fail("routing again");
}

#[test]
fn without_the_guard_it_is_open_while_no_agent_runs() {
    let (stage, sandbox) = Testbed::with_config_and_sandbox(GUARD_OFF);
    stage.kill_agent();
    recreate_interface(&sandbox);
    assert_reaches_everything(&sandbox.namespace);
}

fn assert_closed_without_an_agent(config: &str) {
    let (stage, sandbox) = Testbed::with_config_and_sandbox(config);
    stage.kill_agent();
    recreate_interface(&sandbox);
    assert_reaches_nothing(&sandbox.namespace);
    stage.restart_agent();
    assert_eq!(sandbox.status()["status"], "enforcing");
    sandbox.assert_reaches(ALLOWED_ADDRESSES[0]);
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn it_is_closed_while_no_agent_runs() {
    assert_closed_without_an_agent("");
}

#[test]
fn nftables_keep_it_closed_while_no_agent_runs() {
    assert_closed_without_an_agent(GUARD_NFTABLES);
}

#[test]
fn it_is_closed_even_if_the_agent_saw_it_missing() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let host = &stage.network.host;
    host.ip_batch(&format!("link del {}", sandbox.interface)).or_fail("deleting the interface");
    eventually("the agent notices", || {
        (sandbox.status()["status"] == "interface missing").then_some(())
    })
    .or_fail("deleting the interface");
    // Changes of the policy also detach it.
    sandbox.apply_network(json!({ "allowOut": ["1.1.1.1"], "denyOut": ["0.0.0.0/0"] }));
    stage.kill_agent();
    sandbox.create_veth(host).or_fail("plugging in again");
    sandbox.route_through(host).or_fail("routing again");
    assert_reaches_nothing(&sandbox.namespace);
    stage.restart_agent();
    sandbox.assert_reaches("1.1.1.1");
}

#[test]
fn an_idle_interface_of_the_pool_is_closed_from_its_first_appearance_on() {
    let stage = Testbed::without_agent("");
    let sandbox = stage.add_sandbox();
    let host = &stage.network.host;
    let mut file =
        File::options().append(true).open(stage.agent().config_path()).or_fail("the configuration");
    let addresses = sandbox.addresses().map(|address| address.to_string());
    writeln!(
        file,
        "[[interfaces]]\ninterface = {:?}\naddresses = {addresses:?}",
        sandbox.interface
    )
    .or_fail("writing the configuration");
    host.ip_batch(&format!("link del {}", sandbox.interface)).or_fail("deleting the interface");
    stage.restart_agent();
    stage.kill_agent();
    sandbox.create_veth(host).or_fail("plugging in");
    sandbox.route_through(host).or_fail("routing");
    assert_reaches_nothing(&sandbox.namespace);
    stage.restart_agent();
    let made = stage.request("POST", "/v2/sandboxes", &json!({ "templateID": "base" }));
    assert_eq!(made.status, 201, "{}", made.body);
    sandbox.assert_reaches("8.8.8.8");
}
