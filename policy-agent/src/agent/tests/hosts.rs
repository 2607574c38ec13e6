//! The host's own addresses are part of every policy, and followed.

use std::net::IpAddr;

use super::*;
use crate::policy::{Destination, explain};

const OWN: [&str; 2] = ["10.11.0.1/32", "192.0.2.1/32"];

fn own(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|net| net.parse().expect(net)).collect()
}

/// What decides about an address, as `explain` says it.
fn verdict(agent: &Reconciler, address: &str) -> String {
    let sandbox = agent.table.find("web").expect("known");
    let address: IpAddr = address.parse().expect(address);
    let destination = Destination { address, protocol: 17, port: Some(53), host: None };
    let explanation = explain(&sandbox.rules.policy, &sandbox.rules.floor, &destination);
    explanation.rule.map_or_else(|| explanation.reason.label().to_owned(), |rule| rule.to_string())
}

/// One look around.
fn look(agent: &mut Reconciler) {
    agent.learn_hosts(&[None]);
    agent.follow_hosts(&["web".parse().expect("an ID")]);
    agent.look_after(&"web".parse().expect("an ID"));
}

fn published(machine: &Machine, agent: &Reconciler) -> [u8; 16] {
    let slot = agent.table.find("web").expect("known").slot;
    machine.kernel.memory().published[&slot].digest
}

#[test]
fn the_hosts_addresses_are_denied_from_the_start() {
    let machine = Machine::new();
    machine.kernel.memory().host = own(&OWN);
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(verdict(&agent, "192.0.2.1"), "host_address: 192.0.2.1/32");
    assert_eq!(verdict(&agent, "10.11.0.1"), "platform_deny[1]: 10.0.0.0/8");
    assert_eq!(verdict(&agent, "192.0.2.2"), "no_rule");
    let sandbox = agent.table.find("web").expect("known");
    assert_eq!(published(&machine, &agent), sandbox.rules.compile().digest());
}

#[test]
fn a_new_address_is_denied_at_the_next_look_and_an_old_one_is_free_again() {
    let machine = Machine::new();
    machine.kernel.memory().host = own(&OWN);
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.kernel.memory().calls.clear();
    look(&mut agent);
    // What a list holds anyway changes nothing.
    machine.kernel.memory().host = own(&["10.11.0.1/32", "10.12.0.1/32", "192.0.2.1/32"]);
    look(&mut agent);
    assert!(machine.kernel.memory().calls.is_empty());
    machine.kernel.memory().host = own(&["198.51.100.0/24"]);
    look(&mut agent);
    assert_eq!(machine.kernel.memory().calls, ["publish"]);
    assert_eq!(verdict(&agent, "198.51.100.9"), "host_address: 198.51.100.0/24");
    assert_eq!(verdict(&agent, "192.0.2.1"), "no_rule");
    let sandbox = agent.table.find("web").expect("known");
    assert_eq!(published(&machine, &agent), sandbox.rules.compile().digest());
    agent.update_network("web", &update(r#"{"denyOut":["2.2.2.2"]}"#)).expect("updated");
    assert_eq!(verdict(&agent, "198.51.100.9"), "host_address: 198.51.100.0/24", "it stays");
}

#[test]
fn what_could_not_be_published_is_published_at_a_later_look() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.kernel.memory().host = own(&OWN);
    machine.fails("publish");
    look(&mut agent);
    assert_eq!(verdict(&agent, "192.0.2.1"), "no_rule", "what is in force is told");
    machine.works();
    look(&mut agent);
    assert_eq!(verdict(&agent, "192.0.2.1"), "host_address: 192.0.2.1/32");
}

#[test]
fn while_it_is_not_known_which_addresses_are_the_hosts_none_is_open() {
    let machine = Machine::new();
    machine.kernel.memory().host = own(&OWN);
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.kernel.memory().blind = true;
    look(&mut agent);
    assert_eq!(verdict(&agent, "192.0.2.1"), "host_address: 192.0.2.1/32", "as they were");
    let mut next = machine.agent();
    assert_eq!(verdict(&next, "8.8.8.8"), "host_address: 0.0.0.0/1");
    machine.kernel.memory().blind = false;
    look(&mut next);
    assert_eq!(verdict(&next, "8.8.8.8"), "no_rule");
    assert_eq!(verdict(&next, "192.0.2.1"), "host_address: 192.0.2.1/32");
}
