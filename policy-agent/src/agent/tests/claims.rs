//! Where a sandbox may be, and what it may not share with another.

use super::{berths::wish, *};

fn refusal(outcome: Result<Outcomes, Error>) -> String {
    outcome.expect_err("refused").to_string()
}

#[test]
fn an_address_has_one_sandbox_in_a_network_namespace() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, sandbox("a", "tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let said = refusal(agent.apply(vec![sandbox("b", "tap1", "10.11.0.2", "1.1.1.1")]));
    assert!(said.contains("addresses[0]: \"10.11.0.2\": sandboxes a and b cannot both"), "{said}");
    assert!(agent.table.find("b").is_none());
    // Its own address is no obstacle, and neither is one that it gives up in the same change.
    apply(&mut agent, sandbox("a", "tap0", "10.11.0.2", "2.2.2.2")).expect("applied again");
    let both = vec![
        sandbox("a", "tap0", "10.11.0.3", "1.1.1.1"),
        sandbox("b", "tap1", "10.11.0.2", "1.1.1.1"),
    ];
    assert!(agent.apply(both).expect("right").iter().all(|(_, outcome)| outcome.is_ok()));
}

#[test]
fn two_of_one_change_do_not_share_an_address_either() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let both = vec![
        sandbox("a", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox("b", "tap1", "10.11.0.2", "1.1.1.1"),
    ];
    let said = refusal(agent.apply(both));
    assert!(said.contains("sandboxes a and b cannot both have it"), "{said}");
    assert!(agent.table.is_empty());
    // Whoever comes first in the change.
    apply(&mut agent, sandbox("a", "tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let both = vec![
        sandbox("b", "tap1", "10.11.0.2", "1.1.1.1"),
        sandbox("a", "tap0", "10.11.0.2", "1.1.1.1"),
    ];
    refusal(agent.apply(both));
}

#[test]
fn what_carries_the_default_route_is_refused_unless_forced() {
    let machine = Machine::new();
    machine.kernel.memory().uplinks.insert("tap0".to_owned());
    machine.kernel.memory().interfaces.insert("lo".to_owned());
    let mut agent = machine.agent();
    let spec = || web("tap0", "10.11.0.2", "1.1.1.1");
    let said = refusal(agent.apply(vec![spec()]));
    assert!(said.contains("interface: \"tap0\": carries the default route"), "{said}");
    let said = refusal(agent.apply(vec![web("lo", "10.11.0.2", "1.1.1.1")]));
    assert!(said.contains("interface: \"lo\": is the loopback interface"), "{said}");
    assert!(machine.kernel.memory().attached.is_empty());
    let forced = Request::Apply { specs: vec![spec()], force: true };
    only(agent.change_all(vec![forced]).remove(0).expect("right")).expect("applied");
    // It is there already: another policy cuts nobody off who was not.
    apply(&mut agent, web("tap0", "10.11.0.2", "2.2.2.2")).expect("applied again");
}

#[test]
fn a_berth_that_the_host_needs_is_neither_shut_nor_handed_out() {
    let mut machine = berths::machine(&["tap0", "tap1"]);
    machine.kernel.memory().uplinks.insert("tap0".to_owned());
    let mut agent = machine.agent();
    let shut = |machine: &Machine, name: &str| {
        machine.kernel.memory().attached.contains_key(&berths::gates(name))
    };
    assert!(!shut(&machine, "tap0") && shut(&machine, "tap1"));
    let sandbox = agent.create(wish("1.1.1.1")).expect("created");
    assert_eq!(sandbox.head.interface, "tap1");
    assert!(matches!(agent.create(wish("1.1.1.1")), Err(Error::NoSlot)));
    drop(agent);
    machine.berths =
        machine.berths.iter().cloned().map(|one| Berth { force: true, ..one }).collect();
    let mut agent = machine.agent();
    assert!(shut(&machine, "tap0"));
    agent.create(wish("1.1.1.1")).expect("created");
}

#[test]
fn a_berth_whose_address_somebody_has_is_not_handed_out() {
    let machine = berths::machine(&["tap0", "tap1"]);
    machine.kernel.memory().interfaces.insert("tap2".to_owned());
    let mut agent = machine.agent();
    apply(&mut agent, web("tap2", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(agent.create(wish("1.1.1.1")).expect("created").head.interface, "tap1");
    assert!(matches!(agent.create(wish("1.1.1.1")), Err(Error::NoSlot)));
}
