//! Interfaces of `[[interfaces]]`: handed out, taken back, and shut while nobody has them.

use super::*;

/// A machine whose configuration names these interfaces.
pub fn machine(interfaces: &[&str]) -> Machine {
    let berth = |(index, name): (usize, &&str)| Berth {
        interface: Interface { name: (*name).to_owned(), netns: None },
        addresses: vec![[10, 11, 0, u8::try_from(index + 2).expect("few")].into()],
        mac: None,
        force: false,
    };
    Machine { berths: interfaces.iter().enumerate().map(berth).collect(), ..Machine::new() }
}

/// The name of an interface's gates.
pub fn gates(name: &str) -> String {
    Interface { name: name.to_owned(), netns: None }.gates().expect("a short name")
}

/// A wish for a sandbox that may not reach one address.
pub fn wish(denied: &str) -> Wish {
    Wish {
        origin: Origin { template_id: "base".to_owned(), ..Origin::default() },
        network: update(&format!(r#"{{"denyOut":["{denied}"]}}"#)),
        allow_internet_access: None,
        timeout: Duration::from_secs(300),
        idempotency_key: None,
    }
}

/// Whether the interface has gates that let nothing through: in a slot without a policy, which is
/// not prepared for anybody.
fn is_shut(machine: &Machine, interface: &str) -> bool {
    let memory = machine.kernel.memory();
    let attached = memory.attached.get(&gates(interface));
    attached.is_some_and(|(slot, _)| {
        !memory.published.contains_key(slot) && !memory.prepared.contains(slot)
    })
}

#[test]
fn what_nobody_has_is_shut_at_the_start_by_one_slot() {
    let machine = machine(&["tap0", "tap1", "tap9"]);
    let mut agent = machine.agent();
    assert!(is_shut(&machine, "tap0") && is_shut(&machine, "tap1"));
    assert!(!is_shut(&machine, "tap9"), "it is not there");
    let slot = |name: &str| machine.kernel.memory().attached[&gates(name)].0;
    assert_eq!(slot("tap0"), slot("tap1"));
    machine.kernel.memory().interfaces.insert("tap9".to_owned());
    machine.kernel.memory().calls.clear();
    for _ in 0..2 {
        agent.shut_vacant(&machine.berths);
        assert_eq!(machine.kernel.memory().calls, ["attach"], "only what appeared");
    }
    assert!(is_shut(&machine, "tap9"));
}

#[test]
fn handing_out_and_taking_back_replace_the_gates_in_place() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    machine.kernel.memory().calls.clear();
    let sandbox = agent.create(wish("1.1.1.1")).expect("created");
    assert_eq!(machine.kernel.memory().calls, ["prepare", "attach", "publish"]);
    assert_eq!(machine.kernel.memory().attached[&gates("tap0")].0, sandbox.slot);
    assert_eq!(sandbox.head.addresses, machine.berths[0].addresses);
    agent.shut_vacant(&machine.berths);
    assert_eq!(
        machine.kernel.memory().attached[&gates("tap0")].0,
        sandbox.slot,
        "it is not vacant"
    );
    machine.kernel.memory().calls.clear();
    agent.delete(sandbox.id().as_str()).expect("deleted");
    assert_eq!(machine.kernel.memory().calls, ["attach", "release"], "shut, then emptied");
    assert!(is_shut(&machine, "tap0"));
    assert!(sandbox.life.ended().is_cancelled());
    assert_eq!(machine.kernel.memory().attached.len(), 1);
}

#[test]
fn each_interface_is_handed_out_once() {
    let machine = machine(&["tap0", "tap1", "tap9"]);
    let mut agent = machine.agent();
    let [one, other] = ["1.1.1.1", "2.2.2.2"].map(|ip| agent.create(wish(ip)).expect("created"));
    assert_ne!(one.head.interface, other.head.interface);
    assert_ne!(one.id(), other.id());
    let error = agent.create(wish("1.1.1.1")).expect_err("tap9 is not there");
    assert!(matches!(error, Error::NoSlot), "{error}");
    agent.delete(other.id().as_str()).expect("deleted");
    let next = agent.create(wish("3.3.3.3")).expect("created");
    assert_eq!(next.head.interface, other.head.interface);
}

#[test]
fn a_wrong_wish_is_refused_even_if_no_interface_is_free() {
    let machine = machine(&[]);
    let mut agent = machine.agent();
    let error = agent.create(wish("example.com")).expect_err("a name");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let for_ever = Wish { timeout: Duration::MAX, ..wish("1.1.1.1") };
    assert!(matches!(agent.create(for_ever), Err(Error::Invalid { .. })));
    assert!(matches!(agent.create(wish("1.1.1.1")), Err(Error::NoSlot)));
}

#[test]
fn ids_cannot_be_guessed() {
    let [one, other] = [new_id(), new_id()].map(|id| id.expect("random"));
    assert_ne!(one, other);
    assert_eq!(one.as_str().len(), 20);
    assert!(one.as_str().starts_with(|first: char| first.is_ascii_lowercase()));
}

#[test]
fn an_interface_that_was_applied_to_is_not_free_and_is_shut_afterwards() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert!(!machine.kernel.memory().attached.contains_key("web"), "the gates are the interface's");
    assert!(matches!(agent.create(wish("1.1.1.1")), Err(Error::NoSlot)));
    agent.delete("web").expect("deleted");
    assert!(is_shut(&machine, "tap0"));
    agent.create(wish("1.1.1.1")).expect("created");
}

#[test]
fn a_sandbox_that_moves_away_leaves_it_shut_and_one_that_moves_there_takes_it() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    apply(&mut agent, web("tap1", "10.11.0.2", "1.1.1.1")).expect("moved away");
    assert!(is_shut(&machine, "tap0"));
    let slot = |agent: &Reconciler| agent.table.find("web").expect("known").slot;
    assert_eq!(machine.kernel.memory().attached["web"].0, slot(&agent));
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("moved back");
    let memory = machine.kernel.memory();
    assert_eq!(memory.attached[&gates("tap0")].0, slot(&agent));
    assert!(!memory.attached.contains_key("web"), "left as it was before");
}

#[test]
fn a_move_that_fails_leaves_both_interfaces_as_they_were() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    apply(&mut agent, web("tap1", "10.11.0.2", "1.1.1.1")).expect("applied");
    let before = agent.table.find("web").expect("known").slot;
    machine.fails("publish");
    apply(&mut agent, web("tap0", "10.11.0.2", "2.2.2.2")).expect_err("not published");
    machine.works();
    assert!(is_shut(&machine, "tap0"));
    assert_eq!(machine.kernel.memory().attached["web"].0, before);
}

#[test]
fn a_creation_that_fails_leaves_the_interface_shut_and_free() {
    for call in ["prepare", "publish"] {
        let machine = machine(&["tap0"]);
        let mut agent = machine.agent();
        machine.fails(call);
        let error = agent.create(wish("1.1.1.1")).expect_err(call);
        assert!(matches!(error, Error::Failed { .. }), "{call}: {error}");
        machine.works();
        assert!(is_shut(&machine, "tap0"), "{call}");
        assert!(machine.on_disk().is_empty() && agent.table.is_empty(), "{call}");
        agent.create(wish("1.1.1.1")).expect("created");
    }
}

#[test]
fn a_sandbox_whose_interface_cannot_be_shut_is_kept() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    let sandbox = agent.create(wish("1.1.1.1")).expect("created");
    machine.fails("attach");
    agent.delete(sandbox.id().as_str()).expect_err("not shut");
    assert!(!sandbox.life.ended().is_cancelled());
    machine.works();
    agent.delete(sandbox.id().as_str()).expect("deleted");
    assert!(is_shut(&machine, "tap0"));
}

#[test]
fn an_interface_that_goes_with_its_sandbox_is_shut_when_it_comes_back() {
    let machine = machine(&["tap0"]);
    let mut agent = machine.agent();
    let sandbox = agent.create(wish("1.1.1.1")).expect("created");
    machine.kernel.memory().interfaces.clear();
    agent.delete(sandbox.id().as_str()).expect("deleted");
    assert!(machine.kernel.memory().attached.is_empty());
    machine.kernel.memory().interfaces.insert("tap0".to_owned());
    agent.shut_vacant(&machine.berths);
    assert!(is_shut(&machine, "tap0"));
}

#[test]
fn the_next_agent_leaves_taken_and_vacant_ones_as_they_are() {
    let machine = machine(&["tap0", "tap1"]);
    let sandbox = machine.agent().create(wish("1.1.1.1")).expect("created");
    let before = machine.kernel.memory().attached.clone();
    machine.kernel.memory().calls.clear();
    let mut agent = machine.agent();
    agent.shut_vacant(&machine.berths);
    assert_eq!(machine.kernel.memory().attached, before);
    let again = agent.table.get(sandbox.id()).expect("known");
    assert_eq!((again.slot, &again.status), (sandbox.slot, &Status::Enforcing));
    assert_eq!(again.life.kept(), sandbox.life.kept());
    let calls = machine.kernel.memory().calls.clone();
    assert!(!calls.contains(&"publish") && !calls.contains(&"detach"), "{calls:?}");
}

#[test]
fn what_an_agent_left_that_died_taking_back_is_shut() {
    let machine = machine(&["tap0"]);
    let sandbox = machine.agent().create(wish("1.1.1.1")).expect("created");
    std::fs::remove_file(machine.disk.path().join(format!("sandboxes/{}.json", sandbox.id())))
        .expect("forgotten");
    let agent = machine.agent();
    assert!(agent.table.is_empty() && agent.orphans.is_empty());
    assert!(is_shut(&machine, "tap0"));
}

#[test]
fn gates_change_their_name_with_the_configuration() {
    let mut machine = Machine::new();
    apply(&mut machine.agent(), web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.berths = self::machine(&["tap0", "tap1"]).berths;
    let agent = machine.agent();
    let slot = agent.table.find("web").expect("known").slot;
    let names = |machine: &Machine| {
        let mut names: Vec<_> = machine.kernel.memory().attached.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(&machine), [gates("tap0"), gates("tap1")]);
    assert_eq!(machine.kernel.memory().attached[&gates("tap0")].0, slot);
    assert!(agent.orphans.is_empty());
    machine.berths = Arc::new([]);
    let agent = machine.agent();
    assert_eq!(names(&machine), ["web"]);
    assert_eq!(machine.kernel.memory().attached["web"].0, slot);
    assert_eq!(agent.table.find("web").expect("known").status, Status::Enforcing);
    assert!(agent.orphans.is_empty());
}

#[test]
fn old_gates_stay_as_long_as_the_new_ones_cannot_be_attached() {
    let mut machine = Machine::new();
    apply(&mut machine.agent(), web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.berths = self::machine(&["tap0"]).berths;
    machine.fails("attach");
    let agent = machine.agent();
    assert!(matches!(agent.table.find("web").expect("known").status, Status::Failed(_)));
    assert!(machine.kernel.memory().attached.contains_key("web"));
}
