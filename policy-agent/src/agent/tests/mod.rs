//! The reconciler against a kernel that fails when it is told to.

mod berths;
mod claims;
mod hosts;
mod leases;
mod turns;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::{Result, bail};
use ipnet::IpNet;
use jiff::Timestamp;
use policy_common::{counter::Counters, limit::Limits};

use super::{
    Agent, Berth, Egress, Error, Kernel, Law, Ledger, Outcomes, Presence, Reconciler, Request,
    Rules, Status, Table, Wish, create::new_id, only,
};
use crate::{
    dataplane::{Door, Identity, Interface, PolicyId, Published, Slot},
    life::Origin,
    policy::{Compiled, Defaults, Floor, NetworkConfig, SandboxId, SandboxSpec, read},
    store::{Entry, Store},
};

/// What a kernel would remember.
#[derive(Default)]
struct Memory {
    interfaces: HashSet<String>,
    /// Those of them that carry the default route.
    uplinks: HashSet<String>,
    attached: HashMap<String, (Slot, Interface)>,
    published: HashMap<Slot, Published>,
    prepared: HashSet<Slot>,
    policies: u16,
    /// What the egress proxy was told last about each slot that has a door.
    doors: HashMap<Slot, Arc<Rules>>,
    /// The addresses that the host has.
    host: Vec<IpNet>,
    /// It cannot be told what there is.
    blind: bool,
    /// The interfaces are ports of a bridge.
    bridged: bool,
    /// The call that fails.
    fails: Option<&'static str>,
    /// Changing calls, in their order.
    calls: Vec<&'static str>,
}

/// An address of the host itself.
const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[derive(Default)]
struct Fake(Mutex<Memory>);

impl Fake {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().expect("no test panics inside")
    }

    fn call(&self, name: &'static str) -> Result<MutexGuard<'_, Memory>> {
        let mut memory = self.memory();
        memory.calls.push(name);
        if memory.fails == Some(name) {
            bail!("{name} fails as it was told to");
        }
        Ok(memory)
    }
}

impl Kernel for Fake {
    fn presence(&self, interface: &Interface) -> Presence {
        if self.memory().blind {
            return Presence::Unknown("out of file descriptors".to_owned());
        }
        match self.memory().interfaces.contains(&interface.name) {
            true => Presence::Here(7),
            false => Presence::NoInterface,
        }
    }

    fn host_addresses(&self, _: Option<&Path>) -> Result<Vec<IpNet>> {
        let memory = self.memory();
        if memory.blind {
            bail!("out of file descriptors");
        }
        Ok(memory.host.clone())
    }

    fn carries_default_route(&self, interface: &Interface) -> Result<bool> {
        Ok(self.memory().uplinks.contains(&interface.name))
    }

    fn prepare(&self, slot: Slot, _: &Identity) -> Result<()> {
        let mut memory = self.call("prepare")?;
        memory.published.remove(&slot);
        memory.prepared.insert(slot);
        Ok(())
    }

    fn attach(&self, id: &str, slot: Slot, interface: &Interface) -> Result<()> {
        let mut memory = self.call("attach")?;
        let shut = Interface::of_gates(id).is_some() && !memory.published.contains_key(&slot);
        let ready = shut || memory.prepared.contains(&slot);
        assert!(ready, "attached to a slot that is not prepared");
        memory.attached.insert(id.to_owned(), (slot, interface.clone()));
        Ok(())
    }

    fn is_attached(&self, id: &str, slot: Slot, interface: &Interface) -> Result<bool> {
        let memory = self.memory();
        let here = memory.interfaces.contains(&interface.name) && !memory.blind;
        Ok(here && memory.attached.get(id) == Some(&(slot, interface.clone())))
    }

    fn publish(&self, slots: &[Slot], compiled: &Compiled) -> Result<PolicyId> {
        let mut memory = self.call("publish")?;
        memory.policies += 1;
        let policy = PolicyId(memory.policies);
        let published = Published { digest: compiled.digest(), policy };
        memory.published.extend(slots.iter().map(|slot| (*slot, published)));
        Ok(policy)
    }

    fn published(&self, slot: Slot) -> Result<Option<Published>> {
        Ok(self.memory().published.get(&slot).copied())
    }

    fn restore_pins(&self) -> Result<()> {
        Ok(())
    }

    fn detach(&self, id: &str) -> Result<()> {
        self.call("detach")?.attached.remove(id);
        Ok(())
    }

    fn is_port(&self, _: &Interface) -> Result<bool> {
        Ok(self.memory().bridged)
    }

    fn open_door(&self, _: Slot, _: &Interface) -> Result<Door> {
        drop(self.call("open_door")?);
        Ok(Door { v4: None, v6: None })
    }

    fn close_door(&self, _: Slot) -> Result<()> {
        self.call("close_door").map(|_| ())
    }

    fn release(&self, slot: Slot) -> Result<()> {
        let mut memory = self.call("release")?;
        memory.published.remove(&slot);
        memory.prepared.remove(&slot);
        Ok(())
    }

    fn counters(&self, _: Slot) -> Result<Counters> {
        let mut counters = Counters::default();
        counters.by_reason[6].packets = 10;
        Ok(counters)
    }

    fn limits(&self, _: Slot) -> Result<Limits> {
        Ok(Limits::default())
    }

    fn report_flows(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn attached_slot(&self, id: &str) -> Result<Option<Slot>> {
        Ok(self.memory().attached.get(id).map(|(slot, _)| *slot))
    }

    fn attached_ids(&self) -> Result<Vec<String>> {
        Ok(self.memory().attached.keys().cloned().collect())
    }
}

impl Egress for Fake {
    fn open(
        &self,
        slot: Slot,
        _: &SandboxId,
        _: &Arc<super::Tally>,
        rules: &Arc<Rules>,
        _: Door,
    ) -> Result<()> {
        let before = self.memory().doors.insert(slot, rules.clone());
        assert!(before.is_none(), "a second door for a slot");
        Ok(())
    }

    fn is_open(&self, slot: Slot) -> bool {
        self.memory().doors.contains_key(&slot)
    }

    fn follow(&self, slot: Slot, rules: &Arc<Rules>) {
        let mut memory = self.memory();
        memory.calls.push("follow");
        memory.doors.insert(slot, rules.clone());
    }

    fn close(&self, slot: Slot) {
        self.memory().doors.remove(&slot);
    }

    fn active(&self, _: Slot) -> usize {
        0
    }
}

/// A machine: its kernel and its disk outlive the agent.
struct Machine {
    kernel: Arc<Fake>,
    disk: tempfile::TempDir,
    /// `[[interfaces]]`
    berths: Arc<[Berth]>,
}

impl Machine {
    fn new() -> Self {
        let kernel = Arc::new(Fake::default());
        kernel.memory().interfaces.extend(["tap0", "tap1"].map(str::to_owned));
        Self { kernel, disk: tempfile::tempdir().expect("a directory"), berths: Arc::new([]) }
    }

    fn agent(&self) -> Reconciler {
        let store = Store::open(self.disk.path()).expect("a store");
        let law = Law { floor: Floor::default(), defaults: Defaults::default() };
        let (table, ledger) = (Arc::new(Table::default()), Arc::new(Ledger::default()));
        let kernel = self.kernel.clone();
        let egress = self.kernel.clone();
        let berths = self.berths.clone();
        let mut agent =
            Reconciler::new(kernel, egress, store, Arc::new(law), table, ledger, berths);
        agent.adopt().expect("adopted");
        agent
    }

    fn entries(&self) -> Vec<Entry> {
        Store::open(self.disk.path()).expect("a store").load().expect("loaded").entries
    }

    fn on_disk(&self) -> Vec<SandboxSpec> {
        self.entries().into_iter().map(|entry| entry.spec).collect()
    }

    fn fails(&self, call: &'static str) {
        let mut memory = self.kernel.memory();
        memory.fails = Some(call);
        memory.calls.clear();
    }

    fn works(&self) {
        self.kernel.memory().fails = None;
    }
}

fn web(interface: &str, address: &str, denied: &str) -> SandboxSpec {
    sandbox("web", interface, address, denied)
}

fn sandbox(id: &str, interface: &str, address: &str, denied: &str) -> SandboxSpec {
    let text = format!(
        r#"{{"sandboxID":"{id}","interface":"{interface}","addresses":["{address}"],
        "network":{{"denyOut":["{denied}"],"allowPublicTraffic":false}}}}"#
    );
    read(&text).expect("a right sandbox").remove(0)
}

impl Reconciler {
    fn apply(&mut self, specs: Vec<SandboxSpec>) -> Result<Outcomes, Error> {
        self.change_all(vec![Request::Apply { specs, force: false }]).remove(0)
    }

    fn update_network(&mut self, id: &str, update: &NetworkConfig) -> Result<(), Error> {
        let request = Request::Network(id.to_owned(), Box::new(update.clone()));
        only(self.change_all(vec![request]).remove(0)?)
    }
}

/// Applies one sandbox.
fn apply(agent: &mut Reconciler, spec: SandboxSpec) -> Result<(), Error> {
    agent.apply(vec![spec])?.remove(0).1
}

fn update(json: &str) -> NetworkConfig {
    serde_json::from_str(json).expect("an update")
}

#[test]
fn a_new_sandbox_is_attached_denying_before_its_policy_is_published() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(machine.kernel.memory().calls, ["prepare", "attach", "publish"]);
    assert_eq!(machine.on_disk().len(), 1);
}

#[test]
fn a_new_sandbox_that_fails_leaves_nothing() {
    for call in ["prepare", "attach", "publish"] {
        let machine = Machine::new();
        let mut agent = machine.agent();
        machine.fails(call);
        let error = apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect_err(call);
        assert!(matches!(error, Error::Failed { .. }), "{call}: {error}");
        machine.works();
        let memory = machine.kernel.memory();
        assert!(memory.attached.is_empty() && memory.prepared.is_empty(), "{call}");
        assert!(machine.on_disk().is_empty() && agent.table.is_empty(), "{call}");
    }
}

#[test]
fn the_same_interface_and_addresses_only_get_a_new_policy() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.kernel.memory().calls.clear();
    apply(&mut agent, web("tap0", "10.11.0.2", "2.2.2.2")).expect("applied");
    apply(&mut agent, web("tap0", "10.11.0.2", "2.2.2.2")).expect("applied again");
    assert_eq!(machine.kernel.memory().calls, ["publish"]);
}

#[test]
fn other_addresses_get_a_slot_that_is_ready_before_the_interface_moves_to_it() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let old = agent.table.find("web").expect("known").slot;
    machine.kernel.memory().calls.clear();
    apply(&mut agent, web("tap0", "10.11.0.3", "1.1.1.1")).expect("applied");
    assert_eq!(machine.kernel.memory().calls, ["prepare", "publish", "attach", "release"]);
    let now = agent.table.find("web").expect("known");
    assert_ne!(now.slot, old);
    assert_eq!(machine.kernel.memory().attached["web"].0, now.slot);
    assert_eq!(now.carried.by_reason[6].packets, 10, "counters go on");
}

#[test]
fn a_change_that_fails_leaves_the_old_policy_in_force_and_on_disk() {
    for (call, address) in
        [("publish", "10.11.0.2"), ("publish", "10.11.0.3"), ("attach", "10.11.0.3")]
    {
        let machine = Machine::new();
        let mut agent = machine.agent();
        let spec = web("tap0", "10.11.0.2", "1.1.1.1");
        apply(&mut agent, spec.clone()).expect("applied");
        let before = agent.table.find("web").expect("known");
        machine.fails(call);
        apply(&mut agent, web("tap0", address, "2.2.2.2")).expect_err(call);
        machine.works();
        assert_eq!(machine.on_disk(), std::slice::from_ref(&spec), "{call}");
        assert_eq!(agent.table.find("web").expect("known").spec(), spec, "{call}");
        let memory = machine.kernel.memory();
        assert_eq!(memory.attached["web"].0, before.slot, "{call}");
        assert_eq!(memory.prepared.len(), 1, "{call}");
        assert_eq!(memory.published[&before.slot].digest, before.rules.digest, "{call}");
    }
}

#[test]
fn bad_input_changes_nothing_not_even_what_stands_before_it() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, sandbox("owner", "tap1", "10.11.0.9", "1.1.1.1")).expect("applied");
    machine.kernel.memory().calls.clear();
    let good = || web("tap0", "10.11.0.2", "1.1.1.1");
    let bad = [
        sandbox("bad", "tap9", "10.11.0.3", "1.1.1.1"),
        sandbox("bad", "tap1", "10.11.0.3", "1.1.1.1"),
        sandbox("bad", "tap0", "10.11.0.3", "1.1.1.1"),
        sandbox("bad", "tap1", "10.11.0.3", "not an address"),
        web("tap0", "10.11.0.2", "1.1.1.1"),
    ];
    for spec in bad {
        let error = agent.apply(vec![good(), spec]).expect_err("bad input");
        assert!(matches!(error, Error::Invalid { sandbox: Some(_), .. }), "{error}");
    }
    assert!(machine.kernel.memory().calls.is_empty());
    assert_eq!(machine.on_disk().len(), 1);
}

#[test]
fn an_address_of_the_host_is_refused_and_named() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let mut spec = web("tap0", "10.11.0.2", "1.1.1.1");
    spec.addresses.push(HOST);
    machine.kernel.memory().host = vec![HOST.into()];
    let error = agent.apply(vec![spec]).expect_err("the host's").to_string();
    assert!(error.contains("addresses[1]: \"192.0.2.1\": belongs to the host itself"), "{error}");
    assert!(machine.kernel.memory().calls.is_empty() && machine.on_disk().is_empty());
}

#[test]
fn sandboxes_with_equal_policies_share_rules_and_are_published_at_once() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let specs = vec![
        sandbox("a", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox("b", "tap1", "10.11.0.3", "1.1.1.1"),
    ];
    agent.apply(specs).expect("applied");
    let [a, b] = ["a", "b"].map(|id| agent.table.find(id).expect("known"));
    assert!(Arc::ptr_eq(&a.rules, &b.rules));
    assert_eq!(a.policy, b.policy);
    assert_eq!(machine.kernel.memory().policies, 1);
}

#[test]
fn an_update_replaces_egress_fields_and_keeps_the_others() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let mut spec = web("tap0", "10.11.0.2", "1.1.1.1");
    spec.allow_internet_access = Some(false);
    apply(&mut agent, spec).expect("applied");
    agent.update_network("web", &update(r#"{"allowOut":["2.2.2.2"]}"#)).expect("updated");
    let spec = agent.table.find("web").expect("known").spec();
    assert_eq!(spec.allow_internet_access, None);
    assert_eq!(spec.network.deny_out, None);
    assert_eq!(spec.network.allow_out, Some(vec!["2.2.2.2".to_owned()]));
    assert_eq!(spec.network.allow_public_traffic, Some(false));
    assert_eq!(machine.on_disk(), [spec]);
}

#[test]
fn an_update_is_checked_before_its_sandbox_is_looked_up() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let bad = agent.update_network("nobody", &update(r#"{"denyOut":["example.com"]}"#));
    assert!(matches!(bad, Err(Error::Invalid { .. })));
    let good = agent.update_network("nobody", &update(r#"{"denyOut":["1.1.1.1"]}"#));
    assert!(matches!(good, Err(Error::Unknown(_))));
}

#[test]
fn deleting_detaches_and_forgets() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    agent.delete("web").expect("deleted");
    assert!(matches!(agent.delete("web"), Err(Error::Unknown(_))));
    assert!(machine.on_disk().is_empty() && agent.table.is_empty());
    let memory = machine.kernel.memory();
    assert!(memory.attached.is_empty() && memory.published.is_empty());
}

#[test]
fn what_cannot_be_forgotten_or_detached_stays() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.fails("detach");
    agent.delete("web").expect_err("not detached");
    assert_eq!(machine.on_disk().len(), 1, "it is known to the next agent");
    machine.works();
    // A directory with something in it cannot be removed like a file.
    let file = machine.disk.path().join("sandboxes/web.json");
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir_all(file.join("in the way")).expect("made");
    agent.delete("web").expect_err("not forgotten");
    assert!(machine.kernel.memory().attached.contains_key("web"), "nothing was opened");
    std::fs::remove_dir_all(&file).expect("removed");
    agent.delete("web").expect("deleted");
}

#[test]
fn the_next_agent_changes_nothing_where_all_is_in_place() {
    let machine = Machine::new();
    apply(&mut machine.agent(), web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.kernel.memory().calls.clear();
    let agent = machine.agent();
    assert!(machine.kernel.memory().calls.is_empty());
    let sandbox = agent.table.find("web").expect("known");
    assert_eq!(sandbox.status, Status::Enforcing);
    assert_eq!(sandbox.policy, Some(PolicyId(1)));
}

#[test]
fn after_a_restart_of_the_machine_everything_is_built_again() {
    let machine = Machine::new();
    apply(&mut machine.agent(), web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let interfaces = HashSet::from(["tap0".to_owned()]);
    *machine.kernel.memory() = Memory { interfaces, ..Memory::default() };
    let agent = machine.agent();
    assert_eq!(machine.kernel.memory().calls, ["prepare", "attach", "publish"]);
    assert_eq!(agent.table.find("web").expect("known").status, Status::Enforcing);
}

#[test]
fn what_no_file_names_stays_attached_until_it_is_deleted() {
    let machine = Machine::new();
    apply(&mut machine.agent(), web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    std::fs::write(machine.disk.path().join("sandboxes/web.json"), "{").expect("broken");
    let mut agent = machine.agent();
    let slot = machine.kernel.memory().attached["web"].0;
    assert!(machine.kernel.memory().published.contains_key(&slot), "it goes on enforcing");
    apply(&mut agent, sandbox("other", "tap1", "10.11.0.3", "2.2.2.2")).expect("applied");
    assert_ne!(machine.kernel.memory().attached["other"].0, slot);
    agent.delete("web").expect("an orphan can be deleted");
    assert!(!machine.kernel.memory().attached.contains_key("web"));
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let spec = web("tap0", "10.11.0.2", "1.1.1.1");
    apply(&mut agent, spec.clone()).expect("applied");
    let status = |agent: &Reconciler| agent.table.find("web").expect("known").status.clone();
    machine.kernel.memory().interfaces.clear();
    agent.look_after(&spec.sandbox_id);
    assert_eq!(status(&agent), Status::InterfaceMissing);
    // Its policy can change meanwhile, and so can its addresses.
    apply(&mut agent, web("tap0", "10.11.0.2", "2.2.2.2")).expect("applied");
    apply(&mut agent, web("tap0", "10.11.0.3", "2.2.2.2")).expect("applied");
    assert_eq!(status(&agent), Status::InterfaceMissing);
    machine.kernel.memory().attached.clear();
    machine.kernel.memory().interfaces.insert("tap0".to_owned());
    agent.look_after(&spec.sandbox_id);
    assert_eq!(status(&agent), Status::Enforcing);
    let slot = agent.table.find("web").expect("known").slot;
    assert_eq!(machine.kernel.memory().attached["web"].0, slot);
}

#[test]
fn a_policy_that_could_not_be_published_at_the_start_is_tried_again() {
    let machine = Machine::new();
    let spec = web("tap0", "10.11.0.2", "1.1.1.1");
    apply(&mut machine.agent(), spec.clone()).expect("applied");
    machine.kernel.memory().published.clear();
    machine.fails("publish");
    let mut agent = machine.agent();
    let status = |agent: &Reconciler| agent.table.find("web").expect("known").status.clone();
    assert!(matches!(status(&agent), Status::Failed(_)));
    machine.works();
    agent.look_after(&spec.sandbox_id);
    agent.look_after(&spec.sandbox_id);
    assert_eq!(status(&agent), Status::Enforcing);
}

/// A sandbox with a domain rule.
fn named(address: &str, domain: &str) -> SandboxSpec {
    let text = format!(
        r#"{{"sandboxID":"web","interface":"tap0","addresses":["{address}"],
        "allowInternetAccess":false,"network":{{"allowOut":["{domain}"]}}}}"#
    );
    read(&text).expect("a right sandbox").remove(0)
}

#[test]
fn a_door_is_open_before_the_policy_that_needs_it_is_published() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, named("10.11.0.2", "a.example")).expect("applied");
    let calls = machine.kernel.memory().calls.clone();
    assert_eq!(calls, ["prepare", "attach", "open_door", "publish", "follow"]);
    machine.kernel.memory().calls.clear();
    apply(&mut agent, named("10.11.0.2", "b.example")).expect("applied");
    let calls = machine.kernel.memory().calls.clone();
    assert_eq!(calls, ["follow"], "the kernel knows no names");
}

#[test]
fn the_proxy_follows_the_rules_only_when_the_kernel_enforces_them() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, named("10.11.0.2", "a.example")).expect("applied");
    let before = agent.table.find("web").expect("known");
    machine.fails("publish");
    let mut other = named("10.11.0.2", "b.example");
    other.network.deny_out = Some(vec!["1.1.1.1".to_owned()]);
    apply(&mut agent, other).expect_err("not published");
    assert!(Arc::ptr_eq(&machine.kernel.memory().doors[&before.slot], &before.rules));
}

#[test]
fn a_door_that_cannot_be_opened_stops_the_change() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    machine.fails("open_door");
    apply(&mut agent, named("10.11.0.2", "a.example")).expect_err("a new sandbox");
    machine.works();
    assert!(machine.kernel.memory().attached.is_empty() && agent.table.is_empty());
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let before = agent.table.find("web").expect("known");
    machine.fails("open_door");
    apply(&mut agent, named("10.11.0.2", "a.example")).expect_err("a known sandbox");
    let memory = machine.kernel.memory();
    assert_eq!(memory.published[&before.slot].digest, before.rules.digest);
}

#[test]
fn on_a_port_of_a_bridge_there_are_no_names() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    machine.kernel.memory().bridged = true;
    let refused = apply(&mut agent, named("10.11.0.2", "a.example")).expect_err("bridged");
    assert!(
        refused.to_string().contains("interface: \"tap0\": is a port of a bridge"),
        "{refused}"
    );
    assert!(agent.table.is_empty() && machine.kernel.memory().calls.is_empty());
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("addresses");
    let names = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"]}"#;
    let names = crate::policy::parse(names.as_bytes()).expect("a network");
    assert!(agent.check_update("web", &names).is_err());
    // It becomes one while there are names.
    machine.kernel.memory().bridged = false;
    let spec = named("10.11.0.2", "a.example");
    apply(&mut agent, spec.clone()).expect("routed");
    machine.kernel.memory().bridged = true;
    agent.look_after(&spec.sandbox_id);
    let status = agent.table.find("web").expect("known").status.to_string();
    assert!(status.contains("is a port of a bridge"), "{status}");
    machine.kernel.memory().bridged = false;
    agent.look_after(&spec.sandbox_id);
    assert_eq!(agent.table.find("web").expect("known").status, Status::Enforcing);
}

#[test]
fn a_door_is_shut_when_nothing_needs_it() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    let open = || machine.kernel.memory().doors.len();
    apply(&mut agent, named("10.11.0.2", "a.example")).expect("applied");
    assert_eq!(open(), 1);
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(open(), 0, "without domains");
    apply(&mut agent, named("10.11.0.2", "a.example")).expect("applied");
    apply(&mut agent, named("10.11.0.3", "a.example")).expect("moved");
    assert_eq!(open(), 1, "in the new slot");
    machine.fails("publish");
    apply(&mut agent, named("10.11.0.4", "b.example")).expect_err("not moved");
    machine.works();
    assert_eq!(open(), 1, "the old slot's");
    agent.delete("web").expect("deleted");
    assert_eq!(open(), 0, "deleted");
}

#[test]
fn a_door_goes_and_comes_with_the_interface() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, named("10.11.0.2", "a.example")).expect("applied");
    let id = "web".parse().expect("an ID");
    machine.kernel.memory().interfaces.remove("tap0");
    agent.look_after(&id);
    assert!(machine.kernel.memory().doors.is_empty());
    apply(&mut agent, named("10.11.0.2", "b.example")).expect("applied while it is away");
    assert!(machine.kernel.memory().doors.is_empty());
    machine.kernel.memory().interfaces.insert("tap0".to_owned());
    agent.look_after(&id);
    let sandbox = agent.table.find("web").expect("known");
    assert_eq!(sandbox.status, Status::Enforcing);
    assert!(Arc::ptr_eq(&machine.kernel.memory().doors[&sandbox.slot], &sandbox.rules));
    drop(agent);
    machine.kernel.memory().doors.clear();
    machine.agent();
    assert_eq!(machine.kernel.memory().doors.len(), 1, "adopted");
}

#[test]
fn what_cannot_be_looked_for_is_not_gone() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, named("10.11.0.2", "a.example")).expect("applied");
    let before = agent.table.find("web").expect("known");
    machine.kernel.memory().blind = true;
    agent.look_after(before.id());
    apply(&mut agent, named("10.11.0.2", "b.example")).expect_err("the same slot");
    apply(&mut agent, named("10.11.0.3", "b.example")).expect_err("another slot");
    let now = agent.table.find("web").expect("known");
    assert_eq!((&now.status, now.slot), (&Status::Enforcing, before.slot));
    let memory = machine.kernel.memory();
    assert_eq!(memory.attached["web"].0, before.slot, "still attached");
    assert!(Arc::ptr_eq(&memory.doors[&before.slot], &before.rules), "its door is as it was");
}

#[test]
fn a_policy_that_is_published_is_taken_back_when_the_change_fails_afterwards() {
    let machine = Machine::new();
    let mut agent = machine.agent();
    apply(&mut agent, web("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let before = agent.table.find("web").expect("known");
    // Somebody has removed the gates, and new ones cannot be attached.
    machine.kernel.memory().attached.clear();
    machine.fails("attach");
    apply(&mut agent, web("tap0", "10.11.0.2", "2.2.2.2")).expect_err("not attached");
    let published = machine.kernel.memory().published[&before.slot];
    assert_eq!(published.digest, before.rules.digest);
}
