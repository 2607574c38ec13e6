//! The reconciler with a fake kernel that fails on request.

mod command_queue;
mod creation_notices;
mod host_addresses;
mod interface_pool;
mod lease_expiry;
mod observed_sandboxes;
mod ownership;
mod platform_policy;

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
use policy_common::{counters::ReasonCounters, rate_limit::RateLimiterState};

use super::{
    ActivePolicy, Agent, AgentError, ApplyResults, CreateRequest, DataplaneControl,
    EnforcementStatus, EventAttribution, InterfaceState, PlatformPolicy, PooledInterface,
    ProxyControl, Reconciler, SandboxMetadata, SandboxRegistry, SandboxStore,
    command::AgentCommand, reconciler::create::random_sandbox_id, sandbox::store::SandboxRecord,
    single_result,
};
use crate::{
    dataplane::{
        EndpointAddresses, ExpeditedSection, HostInterface, PolicyId, ProbePacket, PublishedPolicy,
        RedirectListeners, Slot,
    },
    policy::{
        CompiledPolicy, Floor, NetworkConfig, PolicyDefaults, SandboxId, SandboxSpec,
        parse_manifest,
    },
};

/// The state of the fake kernel and of the fake proxy.
#[derive(Default)]
struct FakeState {
    interfaces: HashSet<String>,
    /// The interfaces that carry the default route.
    uplinks: HashSet<String>,
    attached: HashMap<String, (Slot, HostInterface)>,
    guarded: HashMap<String, HostInterface>,
    published: HashMap<Slot, PublishedPolicy>,
    prepared: HashSet<Slot>,
    policy_count: u16,
    /// The last policy that the egress proxy received for each slot with listeners.
    proxy_policies: HashMap<Slot, Arc<ActivePolicy>>,
    /// The host's own addresses.
    host_addresses: Vec<IpNet>,
    /// Whether lookups of interfaces and addresses fail.
    lookups_fail: bool,
    /// Whether the interfaces are bridge ports.
    is_bridge_port: bool,
    /// The slots of observed sandboxes.
    observed: HashSet<Slot>,
    /// The call that fails.
    failing_call: Option<&'static str>,
    /// Calls that change something, in order.
    calls: Vec<&'static str>,
}

/// An address of the host itself.
const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

#[derive(Default)]
struct FakeDataplane(Mutex<FakeState>);

impl FakeDataplane {
    fn state(&self) -> MutexGuard<'_, FakeState> {
        self.0.lock().expect("no test panics inside")
    }

    fn record_call(&self, name: &'static str) -> Result<MutexGuard<'_, FakeState>> {
        let mut state = self.state();
        state.calls.push(name);
        if state.failing_call == Some(name) {
            bail!("{name} fails as it was told to");
        }
        Ok(state)
    }
}

impl DataplaneControl for FakeDataplane {
    fn interface_state(&self, interface: &HostInterface) -> InterfaceState {
        if self.state().lookups_fail {
            return InterfaceState::Unknown("out of file descriptors".to_owned());
        }
        match self.state().interfaces.contains(&interface.name) {
            true => InterfaceState::Present(7),
            false => InterfaceState::NoInterface,
        }
    }

    fn host_addresses(&self, _: Option<&Path>) -> Result<Vec<IpNet>> {
        let state = self.state();
        if state.lookups_fail {
            bail!("out of file descriptors");
        }
        Ok(state.host_addresses.clone())
    }

    fn carries_default_route(&self, interface: &HostInterface) -> Result<bool> {
        Ok(self.state().uplinks.contains(&interface.name))
    }

    fn prepare_slot(&self, slot: Slot, _: &EndpointAddresses) -> Result<()> {
        let mut state = self.record_call("prepare")?;
        state.published.remove(&slot);
        state.prepared.insert(slot);
        Ok(())
    }

    fn expedite_attaching(&self) -> Option<ExpeditedSection<'_>> {
        None
    }

    fn attach(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        let mut state = self.record_call("attach")?;
        let is_blocked = HostInterface::from_pin_name(pin_name).is_some()
            && !state.published.contains_key(&slot);
        let ready = is_blocked || state.prepared.contains(&slot);
        assert!(ready, "attached to a slot that is not prepared");
        state.attached.insert(pin_name.to_owned(), (slot, interface.clone()));
        state.guarded.insert(pin_name.to_owned(), interface.clone());
        Ok(())
    }

    fn is_attached(&self, pin_name: &str, slot: Slot, interface: &HostInterface) -> Result<bool> {
        let state = self.state();
        let is_present = state.interfaces.contains(&interface.name) && !state.lookups_fail;
        Ok(is_present && state.attached.get(pin_name) == Some(&(slot, interface.clone())))
    }

    fn guard_interface(&self, pin_name: &str, _: Slot, interface: &HostInterface) -> Result<()> {
        self.state().guarded.insert(pin_name.to_owned(), interface.clone());
        Ok(())
    }

    fn release_guard(&self, pin_name: &str) -> Result<()> {
        self.state().guarded.remove(pin_name);
        Ok(())
    }

    fn publish(&self, slots: &[Slot], compiled: &CompiledPolicy) -> Result<PolicyId> {
        let mut state = self.record_call("publish")?;
        state.policy_count += 1;
        let policy = PolicyId(state.policy_count);
        let published = PublishedPolicy { digest: compiled.digest(), policy_id: policy };
        state.published.extend(slots.iter().map(|slot| (*slot, published)));
        Ok(policy)
    }

    fn published_policy(&self, slot: Slot) -> Result<Option<PublishedPolicy>> {
        Ok(self.state().published.get(&slot).copied())
    }

    fn probe(&self, _: Slot, _: ProbePacket) -> Result<bool> {
        Ok(true)
    }

    fn is_guarded(&self, _: &str) -> Result<Option<bool>> {
        Ok(None)
    }

    fn restore_pins(&self) -> Result<()> {
        Ok(())
    }

    fn detach(&self, pin_name: &str) -> Result<()> {
        self.record_call("detach")?.attached.remove(pin_name);
        Ok(())
    }

    fn is_bridge_port(&self, _: &HostInterface) -> Result<bool> {
        Ok(self.state().is_bridge_port)
    }

    fn open_listeners(&self, _: Slot, _: &HostInterface) -> Result<RedirectListeners> {
        drop(self.record_call("open_door")?);
        Ok(RedirectListeners { v4: None, v6: None })
    }

    fn close_listeners(&self, _: Slot) -> Result<()> {
        self.record_call("close_door").map(|_| ())
    }

    fn release_slot(&self, slot: Slot) -> Result<()> {
        let mut state = self.record_call("release")?;
        state.published.remove(&slot);
        state.prepared.remove(&slot);
        Ok(())
    }

    fn counters(&self, _: Slot) -> Result<ReasonCounters> {
        let mut counters = ReasonCounters::default();
        counters.by_reason[6].packets = 10;
        Ok(counters)
    }

    fn rate_limits(&self, _: Slot) -> Result<RateLimiterState> {
        Ok(RateLimiterState::default())
    }

    fn set_observed(&self, slot: Slot, observed: bool) -> Result<()> {
        let mut state = self.state();
        if observed {
            state.observed.insert(slot);
        } else {
            state.observed.remove(&slot);
        }
        Ok(())
    }

    fn set_flow_reporting(&self, _: bool) -> Result<()> {
        Ok(())
    }

    fn attached_slot(&self, pin_name: &str) -> Result<Option<Slot>> {
        Ok(self.state().attached.get(pin_name).map(|(slot, _)| *slot))
    }

    fn attached_pin_names(&self) -> Result<Vec<String>> {
        Ok(self.state().attached.keys().cloned().collect())
    }
}

impl ProxyControl for FakeDataplane {
    fn open_listeners(
        &self,
        slot: Slot,
        _: &SandboxId,
        _: &Arc<super::SandboxProxyCounters>,
        active_policy: &Arc<ActivePolicy>,
        _: RedirectListeners,
    ) -> Result<()> {
        let before = self.state().proxy_policies.insert(slot, Arc::clone(active_policy));
        assert!(before.is_none(), "listeners twice for a slot");
        Ok(())
    }

    fn has_listeners(&self, slot: Slot) -> bool {
        self.state().proxy_policies.contains_key(&slot)
    }

    fn update_policy(&self, slot: Slot, active_policy: &Arc<ActivePolicy>) {
        let mut state = self.state();
        state.calls.push("follow");
        state.proxy_policies.insert(slot, Arc::clone(active_policy));
    }

    fn close_listeners(&self, slot: Slot) {
        self.state().proxy_policies.remove(&slot);
    }

    fn active_connections(&self, _: Slot) -> usize {
        0
    }
}

/// A machine. Its kernel and its disk outlive the agent.
struct TestMachine {
    dataplane: Arc<FakeDataplane>,
    disk: tempfile::TempDir,
    /// The interfaces of `[[interfaces]]`.
    pooled_interfaces: Arc<[PooledInterface]>,
}

impl TestMachine {
    fn new() -> Self {
        let dataplane = Arc::new(FakeDataplane::default());
        dataplane.state().interfaces.extend(["tap0", "tap1"].map(str::to_owned));
        Self {
            dataplane,
            disk: tempfile::tempdir().expect("a directory"),
            pooled_interfaces: Arc::new([]),
        }
    }

    fn start_reconciler(&self) -> Reconciler {
        let store = SandboxStore::open(self.disk.path()).expect("a store");
        let platform_policy =
            PlatformPolicy { floor: Floor::default(), defaults: PolicyDefaults::default() };
        let (registry, attribution) =
            (Arc::new(SandboxRegistry::default()), Arc::new(EventAttribution::default()));
        let dataplane: Arc<dyn DataplaneControl> = Arc::<FakeDataplane>::clone(&self.dataplane);
        let proxy = Arc::clone(&self.dataplane);
        let pooled_interfaces = Arc::clone(&self.pooled_interfaces);
        let mut reconciler = Reconciler::new(
            &dataplane,
            proxy,
            store,
            platform_policy.into(),
            registry,
            attribution,
            pooled_interfaces,
        );
        reconciler.adopt().expect("adopted");
        reconciler
    }

    fn persisted_records(&self) -> Vec<SandboxRecord> {
        SandboxStore::open(self.disk.path()).expect("a store").load().expect("loaded").records
    }

    fn persisted_specs(&self) -> Vec<SandboxSpec> {
        self.persisted_records().into_iter().map(|entry| entry.spec).collect()
    }

    fn fail_call(&self, call: &'static str) {
        let mut state = self.dataplane.state();
        state.failing_call = Some(call);
        state.calls.clear();
    }

    fn fail_nothing(&self) {
        self.dataplane.state().failing_call = None;
    }
}

fn web_spec(interface: &str, address: &str, denied: &str) -> SandboxSpec {
    sandbox_spec("web", interface, address, denied)
}

fn sandbox_spec(pin_name: &str, interface: &str, address: &str, denied: &str) -> SandboxSpec {
    let text = format!(
        r#"{{"sandboxID":"{pin_name}","interface":"{interface}","addresses":["{address}"],
        "network":{{"denyOut":["{denied}"],"allowPublicTraffic":false}}}}"#
    );
    parse_manifest(&text).expect("a right sandbox").remove(0)
}

impl Reconciler {
    fn apply(&mut self, specs: Vec<SandboxSpec>) -> Result<ApplyResults, AgentError> {
        self.execute_batch(vec![AgentCommand::Apply { specs, force: false }])
            .remove(0)?
            .into_results()
    }

    fn update_network(&mut self, pin_name: &str, update: &NetworkConfig) -> Result<(), AgentError> {
        let request = AgentCommand::UpdateNetwork(pin_name.to_owned(), Box::new(update.clone()));
        single_result(self.execute_batch(vec![request]).remove(0)?.into_results()?)
    }
}

/// Applies one sandbox.
fn apply_one(reconciler: &mut Reconciler, spec: SandboxSpec) -> Result<(), AgentError> {
    reconciler.apply(vec![spec])?.remove(0).1
}

fn network_update(json: &str) -> NetworkConfig {
    serde_json::from_str(json).expect("an update")
}

#[test]
fn a_new_sandbox_is_attached_denying_before_its_policy_is_published() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(machine.dataplane.state().calls, ["prepare", "attach", "publish"]);
    assert_eq!(machine.persisted_specs().len(), 1);
}

#[test]
fn a_new_sandbox_that_fails_leaves_nothing() {
    for call in ["prepare", "attach", "publish"] {
        let machine = TestMachine::new();
        let mut reconciler = machine.start_reconciler();
        machine.fail_call(call);
        let error =
            apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect_err(call);
        assert!(matches!(error, AgentError::Failed { .. }), "{call}: {error}");
        machine.fail_nothing();
        let state = machine.dataplane.state();
        assert!(state.attached.is_empty() && state.prepared.is_empty(), "{call}");
        assert!(machine.persisted_specs().is_empty() && reconciler.registry.is_empty(), "{call}");
    }
}

#[test]
fn the_same_interface_and_addresses_only_get_a_new_policy() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.dataplane.state().calls.clear();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "2.2.2.2")).expect("applied");
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "2.2.2.2")).expect("applied again");
    assert_eq!(machine.dataplane.state().calls, ["publish"]);
}

#[test]
fn other_addresses_get_a_slot_that_is_ready_before_the_interface_moves_to_it() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let old = reconciler.registry.find("web").expect("known").slot;
    machine.dataplane.state().calls.clear();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.3", "1.1.1.1")).expect("applied");
    assert_eq!(machine.dataplane.state().calls, ["prepare", "publish", "attach", "release"]);
    let now = reconciler.registry.find("web").expect("known");
    assert_ne!(now.slot, old);
    assert_eq!(machine.dataplane.state().attached["web"].0, now.slot);
    assert_eq!(now.previous_counters.by_reason[6].packets, 10, "counters go on");
}

#[test]
fn a_change_that_fails_leaves_the_old_policy_in_force_and_on_disk() {
    for (call, address) in
        [("publish", "10.11.0.2"), ("publish", "10.11.0.3"), ("attach", "10.11.0.3")]
    {
        let machine = TestMachine::new();
        let mut reconciler = machine.start_reconciler();
        let spec = web_spec("tap0", "10.11.0.2", "1.1.1.1");
        apply_one(&mut reconciler, spec.clone()).expect("applied");
        let before = reconciler.registry.find("web").expect("known");
        machine.fail_call(call);
        apply_one(&mut reconciler, web_spec("tap0", address, "2.2.2.2")).expect_err(call);
        machine.fail_nothing();
        assert_eq!(machine.persisted_specs(), std::slice::from_ref(&spec), "{call}");
        assert_eq!(reconciler.registry.find("web").expect("known").spec(), spec, "{call}");
        let state = machine.dataplane.state();
        assert_eq!(state.attached["web"].0, before.slot, "{call}");
        assert_eq!(state.prepared.len(), 1, "{call}");
        assert_eq!(state.published[&before.slot].digest, before.active_policy.digest, "{call}");
    }
}

#[test]
fn bad_input_changes_nothing_not_even_what_stands_before_it() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, sandbox_spec("owner", "tap1", "10.11.0.9", "1.1.1.1"))
        .expect("applied");
    machine.dataplane.state().calls.clear();
    let good = || web_spec("tap0", "10.11.0.2", "1.1.1.1");
    let bad = [
        sandbox_spec("bad", "tap9", "10.11.0.3", "1.1.1.1"),
        sandbox_spec("bad", "tap1", "10.11.0.3", "1.1.1.1"),
        sandbox_spec("bad", "tap0", "10.11.0.3", "1.1.1.1"),
        sandbox_spec("bad", "tap1", "10.11.0.3", "not an address"),
        web_spec("tap0", "10.11.0.2", "1.1.1.1"),
    ];
    for spec in bad {
        let error = reconciler.apply(vec![good(), spec]).expect_err("bad input");
        assert!(matches!(error, AgentError::Invalid { sandbox: Some(_), .. }), "{error}");
    }
    assert!(machine.dataplane.state().calls.is_empty());
    assert_eq!(machine.persisted_specs().len(), 1);
}

#[test]
fn an_address_of_the_host_is_refused_and_named() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let mut spec = web_spec("tap0", "10.11.0.2", "1.1.1.1");
    spec.addresses.push(HOST);
    machine.dataplane.state().host_addresses = vec![HOST.into()];
    let error = reconciler.apply(vec![spec]).expect_err("the host's").to_string();
    assert!(error.contains("addresses[1]: \"192.0.2.1\": belongs to the host itself"), "{error}");
    assert!(machine.dataplane.state().calls.is_empty() && machine.persisted_specs().is_empty());
}

#[test]
fn sandboxes_with_equal_policies_share_rules_and_are_published_at_once() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let specs = vec![
        sandbox_spec("a", "tap0", "10.11.0.2", "1.1.1.1"),
        sandbox_spec("b", "tap1", "10.11.0.3", "1.1.1.1"),
    ];
    reconciler.apply(specs).expect("applied");
    let [a, b] = ["a", "b"].map(|pin_name| reconciler.registry.find(pin_name).expect("known"));
    assert!(Arc::ptr_eq(&a.active_policy, &b.active_policy));
    assert_eq!(a.policy_id, b.policy_id);
    assert_eq!(machine.dataplane.state().policy_count, 1);
}

#[test]
fn an_update_replaces_egress_fields_and_keeps_the_others() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let mut spec = web_spec("tap0", "10.11.0.2", "1.1.1.1");
    spec.allow_internet_access = Some(false);
    apply_one(&mut reconciler, spec).expect("applied");
    reconciler
        .update_network("web", &network_update(r#"{"allowOut":["2.2.2.2"]}"#))
        .expect("updated");
    let spec = reconciler.registry.find("web").expect("known").spec();
    assert_eq!(spec.allow_internet_access, None);
    assert_eq!(spec.network.deny_out, None);
    assert_eq!(spec.network.allow_out, Some(vec!["2.2.2.2".to_owned()]));
    assert_eq!(spec.network.allow_public_traffic, Some(false));
    assert_eq!(machine.persisted_specs(), [spec]);
}

#[test]
fn an_update_is_checked_before_its_sandbox_is_looked_up() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let bad =
        reconciler.update_network("nobody", &network_update(r#"{"denyOut":["example.com"]}"#));
    assert!(matches!(bad, Err(AgentError::Invalid { .. })));
    let good = reconciler.update_network("nobody", &network_update(r#"{"denyOut":["1.1.1.1"]}"#));
    assert!(matches!(good, Err(AgentError::UnknownSandbox(_))));
}

#[test]
fn deleting_detaches_and_forgets() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    reconciler.delete("web").expect("deleted");
    assert!(matches!(reconciler.delete("web"), Err(AgentError::UnknownSandbox(_))));
    assert!(machine.persisted_specs().is_empty() && reconciler.registry.is_empty());
    let state = machine.dataplane.state();
    assert!(state.attached.is_empty() && state.published.is_empty());
}

#[test]
fn what_cannot_be_forgotten_or_detached_stays() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    machine.fail_call("detach");
    reconciler.delete("web").expect_err("not detached");
    assert_eq!(machine.persisted_specs().len(), 1, "it is known to the next agent");
    machine.fail_nothing();
    // A directory that is not empty cannot be removed like a file.
    let file = machine.disk.path().join("sandboxes/web.json");
    std::fs::remove_file(&file).expect("removed");
    std::fs::create_dir_all(file.join("in the way")).expect("made");
    reconciler.delete("web").expect_err("not forgotten");
    assert!(machine.dataplane.state().attached.contains_key("web"), "nothing was opened");
    std::fs::remove_dir_all(&file).expect("removed");
    reconciler.delete("web").expect("deleted");
}

#[test]
fn the_next_agent_changes_nothing_where_all_is_in_place() {
    let machine = TestMachine::new();
    apply_one(&mut machine.start_reconciler(), web_spec("tap0", "10.11.0.2", "1.1.1.1"))
        .expect("applied");
    machine.dataplane.state().calls.clear();
    let reconciler = machine.start_reconciler();
    assert!(machine.dataplane.state().calls.is_empty());
    let sandbox = reconciler.registry.find("web").expect("known");
    assert_eq!(sandbox.status, EnforcementStatus::Enforcing);
    assert_eq!(sandbox.policy_id, Some(PolicyId(1)));
}

#[test]
fn after_a_restart_of_the_machine_everything_is_built_again() {
    let machine = TestMachine::new();
    apply_one(&mut machine.start_reconciler(), web_spec("tap0", "10.11.0.2", "1.1.1.1"))
        .expect("applied");
    let interfaces = HashSet::from(["tap0".to_owned()]);
    *machine.dataplane.state() = FakeState { interfaces, ..FakeState::default() };
    let reconciler = machine.start_reconciler();
    assert_eq!(machine.dataplane.state().calls, ["prepare", "attach", "publish"]);
    assert_eq!(
        reconciler.registry.find("web").expect("known").status,
        EnforcementStatus::Enforcing
    );
}

#[test]
fn what_no_file_names_stays_attached_until_it_is_deleted() {
    let machine = TestMachine::new();
    apply_one(&mut machine.start_reconciler(), web_spec("tap0", "10.11.0.2", "1.1.1.1"))
        .expect("applied");
    std::fs::write(machine.disk.path().join("sandboxes/web.json"), "{").expect("broken");
    let mut reconciler = machine.start_reconciler();
    let slot = machine.dataplane.state().attached["web"].0;
    assert!(machine.dataplane.state().published.contains_key(&slot), "it goes on enforcing");
    apply_one(&mut reconciler, sandbox_spec("other", "tap1", "10.11.0.3", "2.2.2.2"))
        .expect("applied");
    assert_ne!(machine.dataplane.state().attached["other"].0, slot);
    reconciler.delete("web").expect("an orphan can be deleted");
    assert!(!machine.dataplane.state().attached.contains_key("web"));
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let spec = web_spec("tap0", "10.11.0.2", "1.1.1.1");
    apply_one(&mut reconciler, spec.clone()).expect("applied");
    let status =
        |reconciler: &Reconciler| reconciler.registry.find("web").expect("known").status.clone();
    machine.dataplane.state().interfaces.clear();
    reconciler.reconcile_sandbox(&spec.sandbox_id);
    assert_eq!(status(&reconciler), EnforcementStatus::InterfaceMissing);
    // The policy and the addresses of the sandbox can change in the meantime.
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "2.2.2.2")).expect("applied");
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.3", "2.2.2.2")).expect("applied");
    assert_eq!(status(&reconciler), EnforcementStatus::InterfaceMissing);
    machine.dataplane.state().attached.clear();
    machine.dataplane.state().interfaces.insert("tap0".to_owned());
    reconciler.reconcile_sandbox(&spec.sandbox_id);
    assert_eq!(status(&reconciler), EnforcementStatus::Enforcing);
    let slot = reconciler.registry.find("web").expect("known").slot;
    assert_eq!(machine.dataplane.state().attached["web"].0, slot);
}

#[test]
fn a_policy_that_could_not_be_published_at_the_start_is_tried_again() {
    let machine = TestMachine::new();
    let spec = web_spec("tap0", "10.11.0.2", "1.1.1.1");
    apply_one(&mut machine.start_reconciler(), spec.clone()).expect("applied");
    machine.dataplane.state().published.clear();
    machine.fail_call("publish");
    let mut reconciler = machine.start_reconciler();
    let status =
        |reconciler: &Reconciler| reconciler.registry.find("web").expect("known").status.clone();
    assert!(matches!(status(&reconciler), EnforcementStatus::Failed(_)));
    machine.fail_nothing();
    reconciler.reconcile_sandbox(&spec.sandbox_id);
    reconciler.reconcile_sandbox(&spec.sandbox_id);
    assert_eq!(status(&reconciler), EnforcementStatus::Enforcing);
}

/// Returns a sandbox with a domain rule.
fn domain_spec(address: &str, domain: &str) -> SandboxSpec {
    let text = format!(
        r#"{{"sandboxID":"web","interface":"tap0","addresses":["{address}"],
        "allowInternetAccess":false,"network":{{"allowOut":["{domain}"]}}}}"#
    );
    parse_manifest(&text).expect("a right sandbox").remove(0)
}

#[test]
fn proxy_listeners_are_open_before_the_policy_that_needs_them_is_published() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect("applied");
    let calls = machine.dataplane.state().calls.clone();
    assert_eq!(calls, ["prepare", "attach", "open_door", "publish", "follow"]);
    machine.dataplane.state().calls.clear();
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "b.example")).expect("applied");
    let calls = machine.dataplane.state().calls.clone();
    assert_eq!(calls, ["follow"], "the kernel knows no names");
}

#[test]
fn the_proxy_gets_a_policy_only_when_the_kernel_enforces_it() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect("applied");
    let before = reconciler.registry.find("web").expect("known");
    machine.fail_call("publish");
    let mut other = domain_spec("10.11.0.2", "b.example");
    other.network.deny_out = Some(vec!["1.1.1.1".to_owned()]);
    apply_one(&mut reconciler, other).expect_err("not published");
    assert!(Arc::ptr_eq(
        &machine.dataplane.state().proxy_policies[&before.slot],
        &before.active_policy
    ));
}

#[test]
fn proxy_listeners_that_cannot_be_opened_stop_the_change() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    machine.fail_call("open_door");
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect_err("a new sandbox");
    machine.fail_nothing();
    assert!(machine.dataplane.state().attached.is_empty() && reconciler.registry.is_empty());
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let before = reconciler.registry.find("web").expect("known");
    machine.fail_call("open_door");
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect_err("a known sandbox");
    let state = machine.dataplane.state();
    assert_eq!(state.published[&before.slot].digest, before.active_policy.digest);
}

#[test]
fn on_a_port_of_a_bridge_there_are_no_names() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    machine.dataplane.state().is_bridge_port = true;
    let refused =
        apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect_err("bridged");
    assert!(
        refused.to_string().contains("interface: \"tap0\": is a port of a bridge"),
        "{refused}"
    );
    assert!(reconciler.registry.is_empty() && machine.dataplane.state().calls.is_empty());
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("addresses");
    let names = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"]}"#;
    let names = crate::policy::parse_json(names.as_bytes()).expect("a network");
    assert!(reconciler.validate_update("web", &names).is_err());
    // The interface becomes a bridge port while the policy has domain rules.
    machine.dataplane.state().is_bridge_port = false;
    let spec = domain_spec("10.11.0.2", "a.example");
    apply_one(&mut reconciler, spec.clone()).expect("routed");
    machine.dataplane.state().is_bridge_port = true;
    reconciler.reconcile_sandbox(&spec.sandbox_id);
    let status = reconciler.registry.find("web").expect("known").status.to_string();
    assert!(status.contains("is a port of a bridge"), "{status}");
    machine.dataplane.state().is_bridge_port = false;
    reconciler.reconcile_sandbox(&spec.sandbox_id);
    assert_eq!(
        reconciler.registry.find("web").expect("known").status,
        EnforcementStatus::Enforcing
    );
}

#[test]
fn proxy_listeners_are_closed_when_nothing_needs_them() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    let listener_count = || machine.dataplane.state().proxy_policies.len();
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect("applied");
    assert_eq!(listener_count(), 1);
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    assert_eq!(listener_count(), 0, "without domains");
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect("applied");
    apply_one(&mut reconciler, domain_spec("10.11.0.3", "a.example")).expect("moved");
    assert_eq!(listener_count(), 1, "in the new slot");
    machine.fail_call("publish");
    apply_one(&mut reconciler, domain_spec("10.11.0.4", "b.example")).expect_err("not moved");
    machine.fail_nothing();
    assert_eq!(listener_count(), 1, "the old slot's");
    reconciler.delete("web").expect("deleted");
    assert_eq!(listener_count(), 0, "deleted");
}

#[test]
fn proxy_listeners_go_and_come_with_the_interface() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect("applied");
    let pin_name = "web".parse().expect("an ID");
    machine.dataplane.state().interfaces.remove("tap0");
    reconciler.reconcile_sandbox(&pin_name);
    assert!(machine.dataplane.state().proxy_policies.is_empty());
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "b.example"))
        .expect("applied while it is away");
    assert!(machine.dataplane.state().proxy_policies.is_empty());
    machine.dataplane.state().interfaces.insert("tap0".to_owned());
    reconciler.reconcile_sandbox(&pin_name);
    let sandbox = reconciler.registry.find("web").expect("known");
    assert_eq!(sandbox.status, EnforcementStatus::Enforcing);
    assert!(Arc::ptr_eq(
        &machine.dataplane.state().proxy_policies[&sandbox.slot],
        &sandbox.active_policy
    ));
    drop(reconciler);
    machine.dataplane.state().proxy_policies.clear();
    machine.start_reconciler();
    assert_eq!(machine.dataplane.state().proxy_policies.len(), 1, "adopted");
}

#[test]
fn an_interface_that_cannot_be_probed_is_not_treated_as_gone() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "a.example")).expect("applied");
    machine.dataplane.state().lookups_fail = true;
    reconciler.reconcile_sandbox(&"web".parse().expect("an ID"));
    apply_one(&mut reconciler, domain_spec("10.11.0.2", "b.example")).expect("the same slot");
    let before = reconciler.registry.find("web").expect("known");
    apply_one(&mut reconciler, domain_spec("10.11.0.3", "b.example")).expect_err("another slot");
    let now = reconciler.registry.find("web").expect("known");
    assert_eq!((&now.status, now.slot), (&EnforcementStatus::Enforcing, before.slot));
    let state = machine.dataplane.state();
    assert_eq!(state.attached["web"].0, before.slot, "still attached");
    assert!(
        Arc::ptr_eq(&state.proxy_policies[&before.slot], &before.active_policy),
        "its listeners are as they were"
    );
}

#[test]
fn a_published_policy_is_rolled_back_when_the_change_fails_afterwards() {
    let machine = TestMachine::new();
    let mut reconciler = machine.start_reconciler();
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "1.1.1.1")).expect("applied");
    let before = reconciler.registry.find("web").expect("known");
    // Another program has removed the gates, and new ones cannot be attached.
    machine.dataplane.state().attached.clear();
    machine.fail_call("attach");
    reconciler.reconcile_sandbox(before.id());
    apply_one(&mut reconciler, web_spec("tap0", "10.11.0.2", "2.2.2.2")).expect_err("not attached");
    let published = machine.dataplane.state().published[&before.slot];
    assert_eq!(published.digest, before.active_policy.digest);
}
