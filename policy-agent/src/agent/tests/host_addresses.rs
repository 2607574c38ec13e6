//! The host's own addresses are part of every policy, and scans keep them current.

use std::net::IpAddr;

use super::*;
use crate::policy::{FlowDestination, evaluate_connection};

const HOST_NETS: [&str; 2] = ["10.11.0.1/32", "192.0.2.1/32"];

fn parse_nets(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().expect(net)).collect()
}

/// Returns the rule that decides about an address, as `explain` names it.
fn deciding_rule(reconciler: &Reconciler, address: &str) -> String {
    let sandbox = reconciler.registry.find("web").expect("known");
    let address: IpAddr = address.parse().expect(address);
    let destination = FlowDestination { address, protocol: 17, port: Some(53), host: None };
    let explanation = evaluate_connection(
        &sandbox.active_policy.policy,
        &sandbox.active_policy.floor,
        &destination,
    );
    explanation.rule.map_or_else(|| explanation.reason.label().to_owned(), |rule| rule.to_string())
}

/// Runs one scan.
fn scan_once(reconciler: &mut Reconciler) {
    reconciler.refresh_host_addresses(&[None]);
    reconciler.republish_changed_floors(&["web".parse().expect("an ID")]);
    reconciler.reconcile_sandbox(&"web".parse().expect("an ID"));
}

fn published_digest(machine: &TestMachine, reconciler: &Reconciler) -> [u8; 16] {
    let slot = reconciler.registry.find("web").expect("known").slot;
    machine.dataplane.state().published[&slot].digest
}

#[test]
fn the_hosts_addresses_are_denied_from_the_start() {
    let machine = TestMachine::new();
    machine.dataplane.state().host_addresses = parse_nets(&HOST_NETS);
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(deciding_rule(&reconciler, "192.0.2.1"), "host_address: 192.0.2.1/32");
    assert_eq!(deciding_rule(&reconciler, "10.11.0.1"), "platform_deny[1]: 10.0.0.0/8");
    assert_eq!(deciding_rule(&reconciler, "192.0.2.2"), "no_rule");
    let sandbox = reconciler.registry.find("web").expect("known");
    assert_eq!(published_digest(&machine, &reconciler), sandbox.active_policy.compile().digest());
}

#[test]
fn a_new_address_is_denied_at_the_next_scan_and_an_old_one_is_free_again() {
    let machine = TestMachine::new();
    machine.dataplane.state().host_addresses = parse_nets(&HOST_NETS);
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.dataplane.state().calls.clear();
    scan_once(&mut reconciler);
    // Addresses that a list covers anyway change nothing.
    machine.dataplane.state().host_addresses =
        parse_nets(&["10.11.0.1/32", "10.12.0.1/32", "192.0.2.1/32"]);
    scan_once(&mut reconciler);
    assert!(machine.dataplane.state().calls.is_empty());
    machine.dataplane.state().host_addresses = parse_nets(&["198.51.100.0/24"]);
    scan_once(&mut reconciler);
    assert_eq!(machine.dataplane.state().calls, ["publish"]);
    assert_eq!(deciding_rule(&reconciler, "198.51.100.9"), "host_address: 198.51.100.0/24");
    assert_eq!(deciding_rule(&reconciler, "192.0.2.1"), "no_rule");
    let sandbox = reconciler.registry.find("web").expect("known");
    assert_eq!(published_digest(&machine, &reconciler), sandbox.active_policy.compile().digest());
    reconciler
        .update_network("web", &network_update(r#"{"denyOut":["2.2.2.2"]}"#))
        .expect("updated");
    assert_eq!(
        deciding_rule(&reconciler, "198.51.100.9"),
        "host_address: 198.51.100.0/24",
        "it stays"
    );
}

#[test]
fn what_could_not_be_published_is_published_at_a_later_scan() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.dataplane.state().host_addresses = parse_nets(&HOST_NETS);
    machine.fail_call("publish");
    scan_once(&mut reconciler);
    assert_eq!(deciding_rule(&reconciler, "192.0.2.1"), "no_rule", "what is in force is told");
    machine.fail_nothing();
    scan_once(&mut reconciler);
    assert_eq!(deciding_rule(&reconciler, "192.0.2.1"), "host_address: 192.0.2.1/32");
}

#[test]
fn while_it_is_not_known_which_addresses_are_the_hosts_none_is_open() {
    let machine = TestMachine::new();
    machine.dataplane.state().host_addresses = parse_nets(&HOST_NETS);
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.dataplane.state().lookups_fail = true;
    scan_once(&mut reconciler);
    assert_eq!(
        deciding_rule(&reconciler, "192.0.2.1"),
        "host_address: 192.0.2.1/32",
        "as they were"
    );
    let mut next = machine.start_reconciler();
    assert_eq!(deciding_rule(&next, "8.8.8.8"), "host_address: 0.0.0.0/1");
    machine.dataplane.state().lookups_fail = false;
    scan_once(&mut next);
    assert_eq!(deciding_rule(&next, "8.8.8.8"), "no_rule");
    assert_eq!(deciding_rule(&next, "192.0.2.1"), "host_address: 192.0.2.1/32");
}
