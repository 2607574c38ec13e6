//! Interfaces of `[[interfaces]]` are assigned, taken back, and blocked while idle.

use super::*;

/// Creates a machine with these interfaces in its configuration.
pub(super) fn machine_with_pool(interfaces: &[&str]) -> TestMachine {
    let pooled = |(index, name): (usize, &&str)| PooledInterface {
        interface: HostInterface { name: (*name).to_owned(), netns: None },
        addresses: vec![[10, 11, 0, u8::try_from(index + 2).expect("few")].into()],
        mac: None,
        force: false,
    };
    TestMachine {
        pooled_interfaces: interfaces.iter().enumerate().map(pooled).collect(),
        ..TestMachine::new()
    }
}

/// Returns the name under which the gates of an interface are pinned.
pub(super) fn pool_pin_name(name: &str) -> String {
    HostInterface { name: name.to_owned(), netns: None }.pin_name().expect("a short name")
}

/// Creates a request for a sandbox that may not reach one address.
pub(super) fn create_request(denied: &str) -> CreateRequest {
    CreateRequest {
        metadata: SandboxMetadata { template_id: "base".to_owned(), ..SandboxMetadata::default() },
        network: network_update(&format!(r#"{{"denyOut":["{denied}"]}}"#)),
        allow_internet_access: None,
        timeout: Duration::from_secs(300),
        idempotency_key: None,
    }
}

/// Returns whether the interface has gates that deny everything: their slot has no policy and is
/// not prepared for a sandbox.
fn is_blocked(machine: &TestMachine, interface: &str) -> bool {
    let state = machine.dataplane.state();
    let attached = state.attached.get(&pool_pin_name(interface));
    attached.is_some_and(|(slot, _)| {
        !state.published.contains_key(slot) && !state.prepared.contains(slot)
    })
}

#[test]
fn idle_interfaces_are_blocked_at_the_start_by_one_slot() {
    let machine = machine_with_pool(&["tap0", "tap1", "tap9"]);
    let mut reconciler = machine.start_reconciler();
    assert!(is_blocked(&machine, "tap0") && is_blocked(&machine, "tap1"));
    assert!(!is_blocked(&machine, "tap9"), "it is not there");
    let slot = |name: &str| machine.dataplane.state().attached[&pool_pin_name(name)].0;
    assert_eq!(slot("tap0"), slot("tap1"));
    machine.dataplane.state().interfaces.insert("tap9".to_owned());
    machine.dataplane.state().calls.clear();
    for _ in 0..2 {
        reconciler.block_idle_interfaces(&machine.pooled_interfaces);
        assert_eq!(machine.dataplane.state().calls, ["attach"], "only what appeared");
    }
    assert!(is_blocked(&machine, "tap9"));
}

#[test]
fn assigning_and_releasing_replace_the_gates_in_place() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    machine.dataplane.state().calls.clear();
    let sandbox = reconciler.create(create_request("1.1.1.1")).expect("created");
    assert_eq!(machine.dataplane.state().calls, ["prepare", "attach", "publish"]);
    assert_eq!(machine.dataplane.state().attached[&pool_pin_name("tap0")].0, sandbox.slot);
    assert_eq!(sandbox.base_spec.addresses, machine.pooled_interfaces[0].addresses);
    reconciler.block_idle_interfaces(&machine.pooled_interfaces);
    assert_eq!(
        machine.dataplane.state().attached[&pool_pin_name("tap0")].0,
        sandbox.slot,
        "it is not vacant"
    );
    machine.dataplane.state().calls.clear();
    reconciler.delete(sandbox.id().as_str()).expect("deleted");
    assert_eq!(machine.dataplane.state().calls, ["attach", "release"], "shut, then emptied");
    assert!(is_blocked(&machine, "tap0"));
    assert!(sandbox.lifetime.cancellation().is_cancelled());
    assert_eq!(machine.dataplane.state().attached.len(), 1);
}

#[test]
fn each_interface_is_assigned_once() {
    let machine = machine_with_pool(&["tap0", "tap1", "tap9"]);
    let mut reconciler = machine.start_reconciler();
    let [one, other] =
        ["1.1.1.1", "2.2.2.2"].map(|ip| reconciler.create(create_request(ip)).expect("created"));
    assert_ne!(one.base_spec.interface, other.base_spec.interface);
    assert_ne!(one.id(), other.id());
    let error = reconciler.create(create_request("1.1.1.1")).expect_err("tap9 is not there");
    assert!(matches!(error, AgentError::NoFreeInterface), "{error}");
    reconciler.delete(other.id().as_str()).expect("deleted");
    let next = reconciler.create(create_request("3.3.3.3")).expect("created");
    assert_eq!(next.base_spec.interface, other.base_spec.interface);
}

#[test]
fn an_invalid_request_is_rejected_even_if_no_interface_is_free() {
    let machine = machine_with_pool(&[]);
    let mut reconciler = machine.start_reconciler();
    let error = reconciler.create(create_request("example.com")).expect_err("a name");
    assert!(matches!(error, AgentError::Invalid { .. }), "{error}");
    let for_ever = CreateRequest { timeout: Duration::MAX, ..create_request("1.1.1.1") };
    assert!(matches!(reconciler.create(for_ever), Err(AgentError::Invalid { .. })));
    assert!(matches!(
        reconciler.create(create_request("1.1.1.1")),
        Err(AgentError::NoFreeInterface)
    ));
}

#[test]
fn ids_cannot_be_guessed() {
    let [one, other] = [random_sandbox_id(), random_sandbox_id()].map(|id| id.expect("random"));
    assert_ne!(one, other);
    assert_eq!(one.as_str().len(), 20);
    assert!(one.as_str().starts_with(|first: char| first.is_ascii_lowercase()));
}

#[test]
fn an_interface_that_was_applied_to_is_not_free_and_is_blocked_afterwards() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert!(
        !machine.dataplane.state().attached.contains_key("web"),
        "the gates are the interface's"
    );
    assert!(matches!(
        reconciler.create(create_request("1.1.1.1")),
        Err(AgentError::NoFreeInterface)
    ));
    reconciler.delete("web").expect("deleted");
    assert!(is_blocked(&machine, "tap0"));
    reconciler.create(create_request("1.1.1.1")).expect("created");
}

#[test]
fn a_sandbox_that_moves_away_leaves_it_blocked_and_one_that_moves_there_gets_it() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    apply_one(&mut reconciler, web_spec("tap1", "10.11.0.2", "1.1.1.1")).expect("moved away");
    assert!(is_blocked(&machine, "tap0"));
    let slot = |reconciler: &Reconciler| reconciler.registry.find("web").expect("known").slot;
    assert_eq!(machine.dataplane.state().attached["web"].0, slot(&reconciler));
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("moved back");
    let state = machine.dataplane.state();
    assert_eq!(state.attached[&pool_pin_name("tap0")].0, slot(&reconciler));
    assert!(!state.attached.contains_key("web"), "left as it was before");
}

#[test]
fn a_move_that_fails_leaves_both_interfaces_as_they_were() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap1", "10.11.0.2", "1.1.1.1")).expect("applied");
    let before = reconciler.registry.find("web").expect("known").slot;
    machine.fail_call("publish");
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "2.2.2.2"))
        .expect_err("not published");
    machine.fail_nothing();
    assert!(is_blocked(&machine, "tap0"));
    assert_eq!(machine.dataplane.state().attached["web"].0, before);
}

#[test]
fn a_creation_that_fails_leaves_the_interface_blocked_and_free() {
    for call in ["prepare", "publish"] {
        let machine = machine_with_pool(&["tap0"]);
        let mut reconciler = machine.start_reconciler();
        machine.fail_call(call);
        let error = reconciler.create(create_request("1.1.1.1")).expect_err(call);
        assert!(matches!(error, AgentError::Failed { .. }), "{call}: {error}");
        machine.fail_nothing();
        assert!(is_blocked(&machine, "tap0"), "{call}");
        assert!(machine.persisted_specs().is_empty() && reconciler.registry.is_empty(), "{call}");
        reconciler.create(create_request("1.1.1.1")).expect("created");
    }
}

#[test]
fn a_sandbox_whose_interface_cannot_be_blocked_is_kept() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    let sandbox = reconciler.create(create_request("1.1.1.1")).expect("created");
    machine.fail_call("attach");
    reconciler.delete(sandbox.id().as_str()).expect_err("not shut");
    assert!(!sandbox.lifetime.cancellation().is_cancelled());
    machine.fail_nothing();
    reconciler.delete(sandbox.id().as_str()).expect("deleted");
    assert!(is_blocked(&machine, "tap0"));
}

#[test]
fn an_interface_that_goes_with_its_sandbox_is_blocked_when_it_comes_back() {
    let machine = machine_with_pool(&["tap0"]);
    let mut reconciler = machine.start_reconciler();
    let sandbox = reconciler.create(create_request("1.1.1.1")).expect("created");
    machine.dataplane.state().interfaces.clear();
    reconciler.delete(sandbox.id().as_str()).expect("deleted");
    assert!(machine.dataplane.state().attached.is_empty());
    machine.dataplane.state().interfaces.insert("tap0".to_owned());
    reconciler.block_idle_interfaces(&machine.pooled_interfaces);
    assert!(is_blocked(&machine, "tap0"));
}

#[test]
fn the_next_agent_leaves_used_and_idle_interfaces_as_they_are() {
    let machine = machine_with_pool(&["tap0", "tap1"]);
    let sandbox = machine.start_reconciler().create(create_request("1.1.1.1")).expect("created");
    let before = machine.dataplane.state().attached.clone();
    machine.dataplane.state().calls.clear();
    let mut reconciler = machine.start_reconciler();
    reconciler.block_idle_interfaces(&machine.pooled_interfaces);
    assert_eq!(machine.dataplane.state().attached, before);
    let again = reconciler.registry.get(sandbox.id()).expect("known");
    assert_eq!((again.slot, &again.status), (sandbox.slot, &EnforcementStatus::Enforcing));
    assert_eq!(again.lifetime.to_persisted(), sandbox.lifetime.to_persisted());
    let calls = machine.dataplane.state().calls.clone();
    assert!(!calls.contains(&"publish") && !calls.contains(&"detach"), "{calls:?}");
}

#[test]
fn an_interface_whose_release_was_interrupted_is_blocked() {
    let machine = machine_with_pool(&["tap0"]);
    let sandbox = machine.start_reconciler().create(create_request("1.1.1.1")).expect("created");
    std::fs::remove_file(machine.disk.path().join(format!("sandboxes/{}.json", sandbox.id())))
        .expect("forgotten");
    let reconciler = machine.start_reconciler();
    assert!(
        reconciler.registry.is_empty() && reconciler.attachments.orphans.pin_names().is_empty()
    );
    assert!(is_blocked(&machine, "tap0"));
}

#[test]
fn pin_names_follow_the_configuration() {
    let mut machine = TestMachine::new();
    apply_one(&mut machine.start_reconciler(), web_spec("tap0", "10.11.0.2", "1.1.1.1"))
        .expect("applied");
    machine.pooled_interfaces = machine_with_pool(&["tap0", "tap1"]).pooled_interfaces;
    let reconciler = machine.start_reconciler();
    let slot = reconciler.registry.find("web").expect("known").slot;
    let names = |machine: &TestMachine| {
        let mut names: Vec<_> = machine.dataplane.state().attached.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(&machine), [pool_pin_name("tap0"), pool_pin_name("tap1")]);
    assert_eq!(machine.dataplane.state().attached[&pool_pin_name("tap0")].0, slot);
    assert!(reconciler.attachments.orphans.pin_names().is_empty());
    machine.pooled_interfaces = Arc::new([]);
    let reconciler = machine.start_reconciler();
    assert_eq!(names(&machine), ["web"]);
    assert_eq!(machine.dataplane.state().attached["web"].0, slot);
    assert_eq!(
        reconciler.registry.find("web").expect("known").status,
        EnforcementStatus::Enforcing
    );
    assert!(reconciler.attachments.orphans.pin_names().is_empty());
}

#[test]
fn old_gates_stay_as_long_as_the_new_ones_cannot_be_attached() {
    let mut machine = TestMachine::new();
    apply_one(&mut machine.start_reconciler(), web_spec("tap0", "10.11.0.2", "1.1.1.1"))
        .expect("applied");
    machine.pooled_interfaces = machine_with_pool(&["tap0"]).pooled_interfaces;
    machine.fail_call("attach");
    let reconciler = machine.start_reconciler();
    assert!(matches!(
        reconciler.registry.find("web").expect("known").status,
        EnforcementStatus::Failed(_)
    ));
    assert!(machine.dataplane.state().attached.contains_key("web"));
}
