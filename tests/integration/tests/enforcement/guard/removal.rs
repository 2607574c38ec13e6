//! The guard goes with its sandbox, with the setting and with `cleanup`. What others remove comes
//! back.

use std::{fs, process::Command, sync::Arc};

use policy_common::ABI_VERSION;
use policy_testbed::{
    network::{
        NetworkNamespace, command, namespaced_sandbox::NamespacedSandbox, remove_pins,
        sandbox::SANDBOX_INTERFACE,
    },
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};

use serde_json::json;

use super::{
    GUARD_NFTABLES, GUARD_OFF, assert_reaches_everything, assert_reaches_nothing, deny_all,
    nftables_in,
};

fn recreate_interface(sandbox: &TestSandbox, host: &NetworkNamespace) {
    host.ip_batch(&format!("link del {}", sandbox.interface)).or_fail("deleting the interface");
    sandbox.create_veth(host).or_fail("plugging in again");
    sandbox.route_through(host).or_fail("routing again");
}

fn assert_goes_with_its_sandbox(config: &str) {
    let stage = Testbed::with_config(config);
    let (sandbox, other) = (stage.add_sandbox(), stage.add_sandbox());
    [&sandbox, &other].into_iter().for_each(deny_all);
    sandbox.delete();
    assert_reaches_everything(&sandbox.namespace);
    recreate_interface(&sandbox, &stage.network.host);
    assert_reaches_everything(&sandbox.namespace);
    assert_reaches_nothing(&other.namespace);
    other.delete();
    assert_eq!(nftables_in(&stage.network.host), "");
}

#[test]
fn it_goes_with_its_sandbox() {
    assert_goes_with_its_sandbox("");
}

#[test]
fn the_table_of_nftables_goes_with_the_last_sandbox() {
    assert_goes_with_its_sandbox(GUARD_NFTABLES);
}

fn assert_goes_with_cleanup(config: &str) {
    let stage = Testbed::with_config(config);
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    stage.stop_agent();
    let host = &stage.network.host;
    let agent = stage.agent();
    let mut cleanup = agent.cli_command().or_fail("policy-agent");
    cleanup.arg("cleanup").arg("--config").arg(agent.config_path());
    let inside = host.enter().or_fail("entering the host");
    command::run(&mut cleanup).or_fail("cleaning up");
    drop(inside);
    assert!(!agent.bpffs().path().exists());
    assert_eq!(nftables_in(host), "");
    recreate_interface(&sandbox, host);
    assert_reaches_everything(&sandbox.namespace);
}

#[test]
fn it_goes_with_cleanup() {
    assert_goes_with_cleanup("");
}

#[test]
fn the_table_of_nftables_goes_with_cleanup() {
    assert_goes_with_cleanup(GUARD_NFTABLES);
}

/// Starts the agent again with another setting.
fn restart_with(stage: &Arc<Testbed>, from: &str, to: &str) {
    stage.stop_agent();
    let path = stage.agent().config_path();
    let text = fs::read_to_string(&path).or_fail("the configuration");
    assert!(text.contains(from));
    fs::write(&path, text.replace(from, to)).or_fail("writing the configuration");
    stage.restart_agent();
}

#[test]
fn each_setting_takes_over_from_the_others() {
    let stage = Testbed::with_config(GUARD_NFTABLES);
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    let host = &stage.network.host;
    let has_guard = |config| {
        stage.kill_agent();
        recreate_interface(&sandbox, host);
        match config == GUARD_OFF {
            true => assert_reaches_everything(&sandbox.namespace),
            false => assert_reaches_nothing(&sandbox.namespace),
        }
        stage.restart_agent();
        sandbox.assert_refused("8.8.8.8");
    };
    has_guard(GUARD_NFTABLES);
    restart_with(&stage, GUARD_NFTABLES, "[dataplane]\nguard = \"auto\"");
    has_guard("");
    restart_with(&stage, "guard = \"auto\"", "guard = \"nftables\"\nguard_mark = 0x2");
    has_guard(GUARD_NFTABLES);
    assert!(nftables_in(host).contains("meta mark & 0x00000002 != 0x00000002"));
    restart_with(&stage, "guard = \"nftables\"", "guard = \"off\"");
    has_guard(GUARD_OFF);
    assert_eq!(nftables_in(host), "");
}

/// A pin of the guard would keep the namespace alive.
#[test]
fn a_namespace_that_is_deleted_goes_with_its_guard() {
    let stage = Testbed::with_config("");
    let slot = NamespacedSandbox::build("deleted").or_fail("building a slot");
    let spec = slot.sandbox_spec(&json!({ "network": { "denyOut": ["0.0.0.0/0"] } }));
    let answer = stage.request("PUT", "/agent/v1/sandboxes/deleted", &spec);
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_ne!(nftables_in(&slot.namespace), "");
    stage.kill_agent();
    let NamespacedSandbox { sandbox, namespace, .. } = slot;
    drop(namespace);
    let is_gone = || sandbox.namespace.ifindex(SANDBOX_INTERFACE).is_err().then_some(());
    eventually("its end of the veth goes with it", is_gone).or_fail("deleting the namespace");
}

#[test]
fn a_flushed_ruleset_is_restored() {
    let stage = Testbed::with_config(GUARD_NFTABLES);
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    let host = &stage.network.host;
    let mut nft: Command = host.command("nft").or_fail("nft");
    command::run(nft.args(["flush", "ruleset"])).or_fail("flushing the rules");
    let restored = || nftables_in(host).contains(&sandbox.interface).then_some(());
    eventually("the table is there again", restored).or_fail("restoring it");
}

#[test]
fn removed_pins_are_restored() {
    let stage = Testbed::with_config("");
    let sandbox = stage.add_sandbox();
    deny_all(&sandbox);
    let guard = stage.agent().bpffs().path().join(format!("v{ABI_VERSION}/guard"));
    let pins = || -> Vec<_> {
        let directories = fs::read_dir(&guard).into_iter().flatten().flatten();
        let netns = directories.filter(|it| it.file_name().to_string_lossy().starts_with("netns-"));
        netns.flat_map(|it| fs::read_dir(it.path()).into_iter().flatten().flatten()).collect()
    };
    let count = pins().len();
    for pin in pins() {
        fs::remove_file(pin.path()).or_fail("removing a pin");
    }
    remove_pins(&guard);
    eventually("the pins are there again", || (pins().len() == count).then_some(()))
        .or_fail("restoring them");
    stage.kill_agent();
    recreate_interface(&sandbox, &stage.network.host);
    assert_reaches_nothing(&sandbox.namespace);
}
