//! The kernel side as the agent sees it: loads and pins programs and maps, attaches interfaces,
//! publishes compiled policies, reads counters and events. The only user of aya.
//!
//! Calls block, some for a grace period of the kernel (10 to 20 ms): call them off the async
//! threads.

mod attach;
pub(crate) mod features;
mod maps;
mod net;
mod redirect;
mod settings;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::MapData;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use policy_common::{counters::ReasonCounters, rate_limit::RateLimiterState};

pub use self::{
    attach::gate_loader as gate,
    maps::{
        event_ring::EventRingReader,
        policy_maps::{PolicyId, PublishedPolicy},
    },
    net::{
        default_route::carries_default_route, host_addresses::host_addresses,
        link_device as device, netns::run_in_netns,
    },
    redirect::redirect_listeners::RedirectListeners,
    settings::{
        AttachMethod, DataplaneSettings, DenyAction, EndpointAddresses, HookMode, HostInterface,
        InboundSource, Slot,
    },
};
use self::{
    attach::{GateAttacher, clsact, gate_loader::SlotGates, shared_programs},
    maps::{
        endpoint_maps::{self, EndpointMaps},
        event_ring::ProgramLog,
        pin_directory::{self, PinDirectory, PinLock},
        pinned_maps::{self, PinnedMaps},
        policy_maps::PolicyMaps,
    },
    net::link_device,
    redirect::redirect_listeners::{self, RedirectRegistry},
};
use crate::policy::compile::CompiledPolicy;

/// The kernel's enforcement. It goes on when this is dropped.
pub struct Dataplane {
    pin_directory: PinDirectory,
    _pin_lock: PinLock,
    /// Gates that are yet to be replaced call through these; they go with the agent.
    _replaced_program_arrays: Vec<MapData>,
    pinned_maps: PinnedMaps,
    bpffs: PathBuf,
    endpoint_flags: u32,
    report_flows: AtomicBool,
    program_log: Mutex<Option<ProgramLog>>,
    endpoint_maps: EndpointMaps,
    policy_maps: PolicyMaps,
    redirect_registry: RedirectRegistry,
    gate_attacher: GateAttacher,
    /// Where sandboxes are attached, which clsact has to be told when they are detached.
    attached_interfaces: Mutex<HashMap<String, HostInterface>>,
}

impl Dataplane {
    /// Loads the programs and puts them in force, adopting what is pinned with the same ABI.
    pub fn open(settings: DataplaneSettings) -> Result<Self> {
        raise_resource_limits();
        let pins = PinDirectory::create(&settings.bpffs)?;
        let owner = pin_directory::lock_pins(&settings.bpffs)?;
        let replaced = pinned_maps::discard_incomplete_set(&pins)?;
        let attacher = GateAttacher::new(pins.clone(), settings.attach_method, settings.mode)?;
        let mut object = shared_programs::load_object(&pins)?;
        // Opening a gate makes the tables that the programs go into.
        let first = Slot::new(1).context("there is a first slot")?;
        drop(attacher.gate_loader().load_gates(first)?);
        let sandboxes = EndpointMaps::open(&pins)?;
        sandboxes.update_flags(settings.endpoint_flags())?;
        let log = Mutex::new(Some(shared_programs::open_program_log(&mut object)?));
        shared_programs::install_programs(&mut object, &pins)?;
        let policies = PolicyMaps::open(&pins)?;
        let doors = RedirectRegistry::open(&pins)?;
        Ok(Self {
            _pin_lock: owner,
            _replaced_program_arrays: replaced,
            pinned_maps: PinnedMaps::open_all(&pins)?,
            endpoint_flags: settings.endpoint_flags(),
            bpffs: settings.bpffs,
            report_flows: AtomicBool::new(false),
            program_log: log,
            attached_interfaces: Mutex::default(),
            pin_directory: pins,
            endpoint_maps: sandboxes,
            policy_maps: policies,
            redirect_registry: doors,
            gate_attacher: attacher,
        })
    }

    /// Makes a slot ready for a sandbox: identity written, counters zero, no policy, so that
    /// everything but neighbour discovery is denied.
    pub fn prepare_slot(&self, slot: Slot, identity: &EndpointAddresses) -> Result<()> {
        self.policy_maps.withdraw_policy(slot)?;
        let report = self.report_flows.load(Ordering::Relaxed);
        self.endpoint_maps.write_endpoint(
            slot,
            identity,
            endpoint_maps::with_flow_reporting(self.endpoint_flags, report),
        )
    }

    /// Attaches an interface to a slot, or moves an attached one to this slot; a packet meets the
    /// old gates or the new ones. Doing it again changes nothing. `id` is the name of the pins: the
    /// sandbox's, or that of an interface of `[[interfaces]]` ([`HostInterface::pin_name`]).
    ///
    /// # Errors
    ///
    /// When the interface or its namespace is not there, or the kernel refuses.
    pub fn attach(&self, id: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        self.pinned_maps.restore_missing_pins()?;
        self.gate_attacher.attach_gates(id, slot, interface)?;
        self.lock_interfaces()?.insert(id.to_owned(), interface.clone());
        self.retire_other_versions(id)
    }

    /// Whether what is pinned for the sandbox is attached to this interface and slot.
    pub fn is_attached(&self, id: &str, slot: Slot, interface: &HostInterface) -> Result<bool> {
        let attached = self.gate_attacher.is_attached(id, slot, interface)?;
        if attached {
            self.lock_interfaces()?.insert(id.to_owned(), interface.clone());
        }
        Ok(attached)
    }

    /// Puts a compiled policy in force in some slots; returns when the kernel enforces it. On an
    /// error the old policies stay in force.
    pub fn publish(&self, slots: &[Slot], compiled: &CompiledPolicy) -> Result<PolicyId> {
        self.policy_maps.publish_policy(slots, compiled)
    }

    /// What is in force in a slot; `None`: nothing, or it is not known.
    pub fn published_policy(&self, slot: Slot) -> Result<Option<PublishedPolicy>> {
        self.policy_maps.published_policy(slot)
    }

    /// Puts back the pins of maps that somebody removed.
    pub fn restore_pins(&self) -> Result<()> {
        self.pinned_maps.restore_missing_pins()
    }

    /// Takes off the gates that are pinned under this name. It is no error when there are none.
    pub fn detach(&self, id: &str) -> Result<()> {
        let interface = {
            let mut interfaces = self.lock_interfaces()?;
            let interface = interfaces.remove(id).or_else(|| HostInterface::from_pin_name(id));
            // Its filters may have been replaced under another name.
            interface.filter(|left| !interfaces.values().any(|kept| kept == left))
        };
        self.gate_attacher.detach_gates(id, interface.as_ref())?;
        self.retire_other_versions(id)
    }

    /// Whether an interface is a port of a bridge, which takes what would be handed over.
    ///
    /// # Errors
    ///
    /// When the namespace or the interface is not there.
    pub fn is_bridge_port(&self, interface: &HostInterface) -> Result<bool> {
        link_device::is_bridge_port(interface)
    }

    /// Opens a slot's door, in the namespace of the sandbox's interface, and has the kernel hand
    /// over through it. One that is open already is replaced.
    ///
    /// # Errors
    ///
    /// When the namespace is not there, or the kernel refuses a listener or a routing rule.
    pub fn open_listeners(
        &self,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<RedirectListeners> {
        self.redirect_registry.open_listeners(slot, interface)
    }

    /// Hands nothing over for this slot any more. It is no error when it has no door. What is open
    /// of the door itself keeps its network namespace alive until it is dropped.
    pub fn close_listeners(&self, slot: Slot) -> Result<()> {
        self.redirect_registry.close_listeners(slot)
    }

    /// Empties a slot, which can be used again.
    pub fn release_slot(&self, slot: Slot) -> Result<()> {
        self.redirect_registry.close_listeners(slot)?;
        self.endpoint_maps.clear_endpoint(slot)?;
        self.policy_maps.withdraw_policy(slot)
    }

    /// Packets and bytes by reason, over all CPUs.
    pub fn counters(&self, slot: Slot) -> Result<ReasonCounters> {
        self.endpoint_maps.read_counters(slot)
    }

    /// Events that were not written, and the state of the token buckets.
    pub fn rate_limits(&self, slot: Slot) -> Result<RateLimiterState> {
        self.endpoint_maps.read_rate_limiter(slot)
    }

    /// The ring of events. One reader at a time.
    pub fn open_event_reader(&self) -> Result<EventRingReader> {
        let log =
            self.program_log.lock().map_err(|_| anyhow!("the log is poisoned by a panic"))?.take();
        EventRingReader::open(&self.pin_directory, log)
    }

    /// Whether new flows that pass are reported, too.
    pub fn set_flow_reporting(&self, report: bool) -> Result<()> {
        self.report_flows.store(report, Ordering::Relaxed);
        self.endpoint_maps
            .update_flags(endpoint_maps::with_flow_reporting(self.endpoint_flags, report))
    }

    /// The sandboxes, and the interfaces of `[[interfaces]]` ([`HostInterface::from_pin_name`]), that have pinned
    /// links, of whatever version.
    pub fn attached_pin_names(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for pins in PinDirectory::all_versions(&self.bpffs)? {
            ids.extend(pins.pin_names()?);
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The slot that a sandbox's pinned gates name, if that is certain.
    pub fn attached_slot(&self, id: &str) -> Result<Option<Slot>> {
        self.pin_directory.recorded_slot(id)
    }

    /// The gates of a slot, for running them on a packet without an interface.
    pub fn load_slot_gates(&self, slot: Slot) -> Result<SlotGates> {
        self.gate_attacher.gate_loader().load_gates(slot)
    }

    /// Detaches everything and removes every pin, of whatever version, and the routing rules.
    /// `interfaces`: where clsact filters may be, and in whose namespaces rules. Returns the
    /// sandboxes that had links.
    pub fn cleanup(bpffs: &Path, interfaces: &[HostInterface]) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        interfaces.iter().for_each(clsact::detach_from_interface);
        for pins in PinDirectory::all_versions(bpffs)? {
            let pinned = pins.pin_names()?;
            pinned.iter().filter_map(|id| HostInterface::from_pin_name(id)).for_each(|interface| {
                clsact::detach_from_interface(&interface);
            });
            ids.extend(pinned);
            pins.remove_all()?;
        }
        redirect_listeners::remove_all_redirects(interfaces)?;
        Ok(ids)
    }

    /// The directories beside `bpffs` in which other agents have pins, and how many sandboxes and
    /// interfaces each has attached.
    #[must_use]
    pub fn other_agents(bpffs: &Path) -> Vec<(PathBuf, usize)> {
        let Some(beside) = bpffs.parent() else { return Vec::new() };
        let directories = fs::read_dir(beside).into_iter().flatten().flatten();
        let others = directories.map(|entry| entry.path()).filter(|path| path != bpffs);
        let attached = |path: &PathBuf| -> usize {
            let versions = PinDirectory::all_versions(path).unwrap_or_default();
            versions.iter().map(|pins| pins.pin_names().map_or(0, |ids| ids.len())).sum()
        };
        let mut found: Vec<_> = others.map(|path| (path.clone(), attached(&path))).collect();
        found.retain(|(_, count)| *count > 0);
        found.sort();
        found
    }

    /// Removes what another version of the agent attached for a sandbox; it stayed in force until
    /// now.
    fn retire_other_versions(&self, id: &str) -> Result<()> {
        for pins in
            PinDirectory::all_versions(&self.bpffs)?.iter().filter(|pins| !pins.is_current())
        {
            pins.remove_links(id)?;
            if pins.pin_names()?.is_empty() {
                pins.remove_all()?;
            }
        }
        Ok(())
    }

    fn lock_interfaces(&self) -> Result<std::sync::MutexGuard<'_, HashMap<String, HostInterface>>> {
        self.attached_interfaces.lock().map_err(|_| anyhow!("the table of interfaces is poisoned"))
    }
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK; a thousand policies need descriptors, and so do
/// ten thousand connections through the egress proxy.
fn raise_resource_limits() {
    // Without the right to raise them, the calls that need more say so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most = fs::read_to_string("/proc/sys/fs/nr_open").ok();
        let most = most.and_then(|text| text.trim().parse().ok()).unwrap_or(hard).max(hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
