//! The agent's interface to the kernel: loads and pins programs and maps, attaches interfaces,
//! publishes compiled policies, and reads counters and events. The only user of aya.
//!
//! Calls block, some for a kernel grace period (10 to 20 ms), so they must not run on async threads.

mod attach;
pub(crate) mod features;
pub(crate) mod guard;
mod maps;
mod net;
mod probe;
mod redirect;
mod settings;
mod tables;

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, anyhow};
use aya::maps::MapData;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use policy_common::{
    bpf_names,
    counters::{PacketCounter, ReasonCounters},
    rate_limit::RateLimiterState,
    reason::Reason,
};

pub(crate) use self::net::link_device::is_bridge_port;
use self::{
    attach::{GateAttacher, clsact, expedited_rcu, shared_programs::SharedPrograms},
    guard::InterfaceGuard,
    maps::{
        endpoint_maps::{self, EndpointMaps},
        event_ring::ProgramLog,
        mapped_endpoints::MappedEndpoints,
        pin_directory::{self, PinDirectory, PinLock},
        pinned_maps::{self, PinnedMaps},
    },
    redirect::redirect_listeners::{self, RedirectRegistry},
    tables::policy_tables::PolicyTables,
};
pub use self::{
    attach::{expedited_rcu::ExpeditedSection, gate_loader::UnpinnedGates},
    maps::event_ring::EventRingReader,
    net::{
        default_route::carries_default_route, host_addresses::host_addresses,
        link_device::device_towards, namespace_interface::NamespaceInterface, netns::run_in_netns,
        peer_interfaces::interfaces_towards,
    },
    probe::ProbePacket,
    redirect::redirect_listeners::RedirectListeners,
    settings::{
        AttachMethod, DataplaneSettings, DenyAction, EndpointAddresses, GuardMark, GuardMethod,
        GuardSettings, HookMode, HostInterface, InboundSource, Slot, TableKind,
    },
    tables::{
        policy_tables::{PolicyId, PublishedPolicy},
        table_memory::PolicyDigest,
    },
};
use crate::policy::compile::CompiledPolicy;

/// The kernel's enforcement. It continues when this is dropped.
pub struct Dataplane {
    pin_directory: PinDirectory,
    _pin_lock: PinLock,
    /// Gates that are not replaced yet call through these, which are released when the agent ends.
    _replaced_program_arrays: Vec<MapData>,
    pinned_maps: PinnedMaps,
    bpffs: PathBuf,
    endpoint_flags: u32,
    report_flows: AtomicBool,
    program_log: Mutex<Option<ProgramLog>>,
    endpoint_maps: EndpointMaps,
    policy_tables: PolicyTables,
    redirect_registry: RedirectRegistry,
    gate_attacher: GateAttacher,
    interface_guard: InterfaceGuard,
    /// The interfaces of attached sandboxes. clsact needs them for detaching.
    attached_interfaces: Mutex<HashMap<String, HostInterface>>,
}

impl Dataplane {
    /// Loads and installs the programs. Adopts pinned maps of the same ABI version.
    pub fn open(settings: DataplaneSettings) -> Result<Self> {
        raise_resource_limits();
        let pins = PinDirectory::create(&settings.bpffs)?;
        let owner = pin_directory::lock_pins(&settings.bpffs)?;
        let replaced = pinned_maps::discard_incomplete_set(&pins)?;
        let attacher = GateAttacher::new(pins.clone(), &settings)?;
        let programs = SharedPrograms::new(&pins, settings.guard.mark)?;
        let installed = programs.find_installed(pinned_maps::is_complete_set(&pins));
        let mut object = installed.is_none().then(|| programs.load_object()).transpose()?;
        if object.is_some() {
            // Opening a gate creates the program arrays.
            let first = Slot::new(1).context("there is a first slot")?;
            drop(attacher.gate_loader().load_gates(first)?);
        }
        let mapped = Arc::new(MappedEndpoints::open(&pins.map_path(bpf_names::SANDBOXES))?);
        let sandboxes = EndpointMaps::open(&pins, Arc::clone(&mapped))?;
        sandboxes.update_flags(settings.endpoint_flags())?;
        let log = match &mut object {
            Some(object) => Some(programs.install(object)?),
            None => installed,
        };
        let policy_tables = PolicyTables::open(&pins, mapped, settings.tables)?;
        let redirect_registry = RedirectRegistry::open(&pins)?;
        let guard = InterfaceGuard::open(&pins, &settings.bpffs, settings.guard)?;
        Ok(Self {
            _pin_lock: owner,
            _replaced_program_arrays: replaced,
            pinned_maps: PinnedMaps::open_all(&pins)?,
            endpoint_flags: settings.endpoint_flags(),
            bpffs: settings.bpffs,
            report_flows: AtomicBool::new(false),
            program_log: Mutex::new(log),
            attached_interfaces: Mutex::default(),
            pin_directory: pins,
            endpoint_maps: sandboxes,
            policy_tables,
            redirect_registry,
            gate_attacher: attacher,
            interface_guard: guard,
        })
    }

    /// Prepares a slot for a sandbox: writes its identity, resets the counters and removes any
    /// policy, so that everything but neighbour discovery is denied.
    pub fn prepare_slot(&self, slot: Slot, identity: &EndpointAddresses) -> Result<()> {
        self.policy_tables.withdraw_policy(slot);
        let report = self.report_flows.load(Ordering::Relaxed);
        self.endpoint_maps.write_endpoint(
            slot,
            identity,
            endpoint_maps::with_flow_reporting(self.endpoint_flags, report),
        )
    }

    /// Expedites the kernel's grace periods until the section is dropped, while many interfaces are
    /// attached or detached.
    pub fn expedite_attaching(&self) -> ExpeditedSection<'_> {
        self.gate_attacher.expedite()
    }

    /// Attaches an interface to a slot, or moves an attached one to this slot. Every packet is
    /// judged by either the old or the new gates. The call is idempotent. `id` is the name of the
    /// pins: the sandbox's ID, or the name of an interface of `[[interfaces]]`
    /// ([`HostInterface::pin_name`]).
    ///
    /// # Errors
    ///
    /// The interface or its namespace does not exist, or the kernel refuses.
    pub fn attach(&self, id: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        self.pinned_maps.restore_missing_pins()?;
        self.gate_attacher.attach_gates(id, slot, interface)?;
        // Afterwards: the gates of another version may not mark what passes.
        self.interface_guard.guard_interface(id, slot, interface)?;
        self.lock_interfaces()?.insert(id.to_owned(), interface.clone());
        self.retire_other_versions(id)
    }

    /// Guards an interface that does not exist now, so that nothing passes when it comes back before
    /// its gates are attached.
    pub fn guard_interface(&self, id: &str, slot: Slot, interface: &HostInterface) -> Result<()> {
        self.interface_guard.guard_interface(id, slot, interface)
    }

    /// Stops guarding the interface with this pin name. Succeeds if it is not guarded.
    pub fn release_guard(&self, id: &str) -> Result<()> {
        self.interface_guard.release_interface(id)
    }

    /// Whether the gates pinned under this name are attached to this interface with this slot.
    pub fn is_attached(&self, id: &str, slot: Slot, interface: &HostInterface) -> Result<bool> {
        let attached = self.gate_attacher.is_attached(id, slot, interface)?;
        if attached {
            self.interface_guard.guard_interface(id, slot, interface)?;
            self.lock_interfaces()?.insert(id.to_owned(), interface.clone());
        }
        Ok(attached)
    }

    /// Publishes a compiled policy in some slots. The kernel enforces it when this returns. On an
    /// error the old policies stay in force.
    pub fn publish(&self, slots: &[Slot], compiled: &CompiledPolicy) -> Result<PolicyId> {
        self.policy_tables.publish_policy(slots, compiled)
    }

    /// The policy in force in a slot. `None` if there is none or it is unknown.
    pub fn published_policy(&self, slot: Slot) -> Result<Option<PublishedPolicy>> {
        Ok(self.policy_tables.published_policy(slot))
    }

    /// The bytes of all tables in force.
    pub fn table_bytes(&self) -> usize {
        self.policy_tables.bytes_in_force()
    }

    /// Restores pins of maps and of the guard that have been removed.
    pub fn restore_pins(&self) -> Result<()> {
        self.pinned_maps.restore_missing_pins()?;
        self.interface_guard.restore()
    }

    /// Detaches the gates pinned under this name. Succeeds if there are none. Their interface stays
    /// guarded.
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

    /// Whether an interface is a port of a bridge, which would take packets that should be
    /// redirected.
    ///
    /// # Errors
    ///
    /// The namespace or the interface does not exist.
    pub fn is_bridge_port(&self, interface: &HostInterface) -> Result<bool> {
        is_bridge_port(interface)
    }

    /// Opens a slot's listeners in the namespace of the sandbox's interface, and makes the kernel
    /// redirect connections to them. Replaces existing listeners.
    ///
    /// # Errors
    ///
    /// The namespace does not exist, or the kernel refuses a listener or a routing rule.
    pub fn open_listeners(
        &self,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<RedirectListeners> {
        self.redirect_registry.open_listeners(slot, interface)
    }

    /// Stops redirecting connections of this slot. Succeeds if it has no listeners. Open listeners
    /// keep their network namespace alive until they are dropped.
    pub fn close_listeners(&self, slot: Slot) -> Result<()> {
        self.redirect_registry.close_listeners(slot)
    }

    /// Clears a slot for reuse.
    pub fn release_slot(&self, slot: Slot) -> Result<()> {
        self.redirect_registry.close_listeners(slot)?;
        self.endpoint_maps.clear_endpoint(slot)?;
        self.policy_tables.withdraw_policy(slot);
        Ok(())
    }

    /// The packet and byte counters, summed over all CPUs.
    pub fn counters(&self, slot: Slot) -> Result<ReasonCounters> {
        let mut counters = self.endpoint_maps.read_counters(slot)?;
        let (packets, bytes) = self.interface_guard.dropped(slot)?;
        counters.by_reason[Reason::Guard as usize] = PacketCounter { packets, bytes };
        Ok(counters)
    }

    /// The state of the token buckets, and the numbers of events that were not written.
    pub fn rate_limits(&self, slot: Slot) -> Result<RateLimiterState> {
        self.endpoint_maps.read_rate_limiter(slot)
    }

    /// Opens the ring of events. There must be only one reader at a time.
    pub fn open_event_reader(&self) -> Result<EventRingReader> {
        let log =
            self.program_log.lock().map_err(|_| anyhow!("the log is poisoned by a panic"))?.take();
        EventRingReader::open(&self.pin_directory, log)
    }

    /// Sets whether new flows that pass are reported.
    pub fn set_flow_reporting(&self, report: bool) -> Result<()> {
        self.report_flows.store(report, Ordering::Relaxed);
        self.endpoint_maps
            .update_flags(endpoint_maps::with_flow_reporting(self.endpoint_flags, report))
    }

    /// Sets whether the sandbox in a slot is observed. Its new flows are then always reported.
    pub fn set_observed(&self, slot: Slot, observed: bool) -> Result<()> {
        let report = self.report_flows.load(Ordering::Relaxed);
        self.endpoint_maps.set_observed(slot, observed, report)
    }

    /// The sandboxes, and the interfaces of `[[interfaces]]` ([`HostInterface::from_pin_name`]),
    /// that have pinned links of any ABI version.
    pub fn attached_pin_names(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for pins in PinDirectory::all_versions(&self.bpffs)? {
            ids.extend(pins.pin_names()?);
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The slot that all pinned gates of a sandbox set. `None` if that is not certain.
    pub fn attached_slot(&self, id: &str) -> Result<Option<Slot>> {
        self.pin_directory.recorded_slot(id)
    }

    /// The gates of a slot, for running them on a packet without an interface.
    pub fn load_slot_gates(&self, slot: Slot) -> Result<UnpinnedGates> {
        self.gate_attacher.gate_loader().load_gates(slot)
    }

    /// Detaches all gates and removes the pins of all ABI versions and the routing rules.
    /// `interfaces` are those that may have clsact filters, or routing rules in their namespaces.
    /// Returns the names of removed links.
    pub fn cleanup(bpffs: &Path, interfaces: &[HostInterface]) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        expedited_rcu::restore_setting(bpffs);
        interfaces.iter().for_each(clsact::detach_from_interface);
        for pins in PinDirectory::all_versions(bpffs)? {
            let pinned = pins.pin_names()?;
            pinned.iter().filter_map(|id| HostInterface::from_pin_name(id)).for_each(|interface| {
                clsact::detach_from_interface(&interface);
            });
            ids.extend(pinned);
            guard::remove_guard(&pins, bpffs)?;
            pins.remove_all()?;
        }
        redirect_listeners::remove_all_redirects(interfaces)?;
        Ok(ids)
    }

    /// The directories next to `bpffs` that contain pins of other agents, and how many sandboxes
    /// and interfaces each has attached.
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

    /// Removes the gates of a sandbox that other versions of the agent attached, which enforced
    /// until now.
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

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK. A thousand policies need many file
/// descriptors, and so do ten thousand connections through the egress proxy.
fn raise_resource_limits() {
    // Without permission to raise them, the calls that need more report errors.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most = fs::read_to_string("/proc/sys/fs/nr_open").ok();
        let most = most.and_then(|text| text.trim().parse().ok()).unwrap_or(hard).max(hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
