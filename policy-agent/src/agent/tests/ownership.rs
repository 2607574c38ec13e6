//! Where a sandbox may be, and what two sandboxes cannot share.

use super::{interface_pool::create_request, *};

fn refusal_message(outcome: Result<ApplyResults, AgentError>) -> String {
    outcome.expect_err("refused").to_string()
}

#[test]
fn an_address_has_one_sandbox_in_a_network_namespace() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let message =
        refusal_message(reconciler.apply(vec![sandbox_spec("b", "tap1", "10.11.0.2", "1.1.1.1")]));
    assert!(
        message.contains("addresses[0]: \"10.11.0.2\": sandboxes a and b cannot both"),
        "{message}"
    );
    assert!(reconciler.registry.find("b").is_none());
    // The sandbox's own address is no conflict, and neither is an address that is released in the
    // same change.
    apply_one(&mut reconciler, sandbox_spec("a", "tap0", "10.11.0.2", "2.2.2.2"))
        .expect("applied again");
    let both = vec![
        sandbox_spec("a", "tap0", "10.11.0.3", "1.1.1.1"),
        sandbox_spec("b", "tap1", "10.11.0.2", "1.1.1.1"),
    ];
    assert!(reconciler.apply(both).expect("right").iter().all(|(_, outcome)| outcome.is_ok()));
}

#[test]
fn two_of_one_change_do_not_share_an_address_either() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let both = vec![
        sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox_spec("b", "tap1", "10.11.0.2", "1.1.1.1"),
    ];
    let message = refusal_message(reconciler.apply(both));
    assert!(message.contains("sandboxes a and b cannot both have it"), "{message}");
    assert!(reconciler.registry.is_empty());
    // The order within the change makes no difference.
    apply_one(&mut reconciler, sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let both = vec![
        sandbox_spec("b", "tap1", "10.11.0.2", "1.1.1.1"),
        sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1"),
    ];
    refusal_message(reconciler.apply(both));
}

#[test]
fn what_carries_the_default_route_is_refused_unless_forced() {
    let machine = TestMachine::new();
    machine.dataplane.state().uplinks.insert("tap0".to_owned());
    machine.dataplane.state().interfaces.insert("lo".to_owned());
    let mut reconciler = machine.start_reconciler();
    let spec = || web_spec("tap0", "10.11.0.2", "1.1.1.1");
    let message = refusal_message(reconciler.apply(vec![spec()]));
    assert!(message.contains("interface: \"tap0\": carries the default route"), "{message}");
    let message = refusal_message(reconciler.apply(vec![web_spec("lo", "10.11.0.2", "1.1.1.1")]));
    assert!(message.contains("interface: \"lo\": is the loopback interface"), "{message}");
    assert!(machine.dataplane.state().attached.is_empty());
    let forced = AgentCommand::Apply { specs: vec![spec()], force: true };
    let reply = reconciler.execute_batch(vec![forced]).remove(0).expect("right");
    single_result(reply.into_results().expect("applied")).expect("applied");
    // The sandbox is on the interface already, so another policy does not cut the host off.
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "2.2.2.2")).expect("applied again");
}

#[test]
fn an_interface_that_the_host_needs_is_neither_blocked_nor_assigned() {
    let mut machine = interface_pool::machine_with_pool(&["tap0", "tap1"]);
    machine.dataplane.state().uplinks.insert("tap0".to_owned());
    let mut reconciler = machine.start_reconciler();
    let has_gates = |machine: &TestMachine, name: &str| {
        machine.dataplane.state().attached.contains_key(&interface_pool::pool_pin_name(name))
    };
    assert!(!has_gates(&machine, "tap0") && has_gates(&machine, "tap1"));
    let sandbox = reconciler.create(create_request("1.1.1.1")).expect("created");
    assert_eq!(sandbox.base_spec.interface, "tap1");
    assert!(matches!(
        reconciler.create(create_request("1.1.1.1")),
        Err(AgentError::NoFreeInterface)
    ));
    drop(reconciler);
    machine.pooled_interfaces = machine
        .pooled_interfaces
        .iter()
        .cloned()
        .map(|one| PooledInterface { force: true, ..one })
        .collect();
    let mut reconciler = machine.start_reconciler();
    assert!(has_gates(&machine, "tap0"));
    reconciler.create(create_request("1.1.1.1")).expect("created");
}

#[test]
fn an_interface_whose_address_is_in_use_is_not_assigned() {
    let machine = interface_pool::machine_with_pool(&["tap0", "tap1"]);
    machine.dataplane.state().interfaces.insert("tap2".to_owned());
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap2", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(
        reconciler.create(create_request("1.1.1.1")).expect("created").base_spec.interface,
        "tap1"
    );
    assert!(matches!(
        reconciler.create(create_request("1.1.1.1")),
        Err(AgentError::NoFreeInterface)
    ));
}
