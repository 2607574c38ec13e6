//! The kernel side as the agent sees it: loads and pins programs and maps, attaches interfaces,
//! publishes compiled policies, reads counters and events. The only user of aya.
//!
//! Calls block, some for a grace period of the kernel (10 to 20 ms): call them off the async
//! threads.

mod attach;
mod bpf;
pub mod device;
mod doors;
mod events;
mod filters;
pub mod gate;
mod host_addresses;
mod huge;
mod image;
mod maps;
mod netlink;
mod netns;
mod pins;
mod policies;
mod programs;
mod route;
mod routing;
mod sandboxes;
mod settings;
mod skb;
mod table;
mod uplink;

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
use policy_common::{counter::Counters, limit::Limits};

use self::{
    attach::Attacher,
    doors::Doors,
    gate::Gate,
    maps::Maps,
    pins::{Owner, Pins},
    policies::Policies,
    programs::ProgramLog,
    sandboxes::Sandboxes,
};
pub use self::{
    doors::Door,
    events::EventReader,
    host_addresses::host_addresses,
    netns::within,
    policies::{PolicyId, Published},
    settings::{AttachMethod, DenyAction, Identity, Inbound, Interface, Mode, Settings, Slot},
    uplink::carries_default_route,
};
use crate::policy::compile::Compiled;

/// Whether the running kernel describes its packets, which the programs need to know.
pub fn knows_packets() -> Result<()> {
    skb::layout().map(drop)
}

/// Whether the running kernel can have the largest of the tables for large policies.
#[must_use]
pub fn has_huge_tables() -> bool {
    *huge::SUPPORTED != 0
}

/// The kernel's enforcement. It goes on when this is dropped.
pub struct Dataplane {
    pins: Pins,
    _owner: Owner,
    /// Gates that are yet to be replaced call through these; they go with the agent.
    _replaced: Vec<MapData>,
    maps: Maps,
    bpffs: PathBuf,
    flags: u32,
    report_flows: AtomicBool,
    log: Mutex<Option<ProgramLog>>,
    sandboxes: Sandboxes,
    policies: Policies,
    doors: Doors,
    attacher: Attacher,
    /// Where sandboxes are attached, which clsact has to be told when they are detached.
    interfaces: Mutex<HashMap<String, Interface>>,
}

impl Dataplane {
    /// Loads the programs and puts them in force, adopting what is pinned with the same ABI.
    pub fn open(settings: Settings) -> Result<Self> {
        raise_limits();
        let pins = Pins::create(&settings.bpffs)?;
        let owner = pins::own(&settings.bpffs)?;
        let replaced = maps::discard_incomplete(&pins)?;
        let attacher = Attacher::new(pins.clone(), settings.attach, settings.mode)?;
        let mut object = programs::load(&pins)?;
        // Opening a gate makes the tables that the programs go into.
        let first = Slot::new(1).context("there is a first slot")?;
        drop(attacher.gates().open(first)?);
        let sandboxes = Sandboxes::open(&pins)?;
        sandboxes.set_flags(settings.flags())?;
        let log = Mutex::new(Some(programs::log(&mut object)?));
        programs::install(&mut object, &pins)?;
        let policies = Policies::open(&pins)?;
        let doors = Doors::open(&pins)?;
        Ok(Self {
            _owner: owner,
            _replaced: replaced,
            maps: Maps::hold(&pins)?,
            flags: settings.flags(),
            bpffs: settings.bpffs,
            report_flows: AtomicBool::new(false),
            log,
            interfaces: Mutex::default(),
            pins,
            sandboxes,
            policies,
            doors,
            attacher,
        })
    }

    /// Makes a slot ready for a sandbox: identity written, counters zero, no policy, so that
    /// everything but neighbour discovery is denied.
    pub fn prepare(&self, slot: Slot, identity: &Identity) -> Result<()> {
        self.policies.withdraw(slot)?;
        let report = self.report_flows.load(Ordering::Relaxed);
        self.sandboxes.write(slot, identity, sandboxes::with_flows(self.flags, report))
    }

    /// Attaches an interface to a slot, or moves an attached one to this slot; a packet meets the
    /// old gates or the new ones. Doing it again changes nothing. `id` is the name of the pins: the
    /// sandbox's, or that of an interface of `[[interfaces]]` ([`Interface::gates`]).
    ///
    /// # Errors
    ///
    /// When the interface or its namespace is not there, or the kernel refuses.
    pub fn attach(&self, id: &str, slot: Slot, interface: &Interface) -> Result<()> {
        self.maps.restore()?;
        self.attacher.attach(id, slot, interface)?;
        self.interfaces()?.insert(id.to_owned(), interface.clone());
        self.retire_other_versions(id)
    }

    /// Whether what is pinned for the sandbox is attached to this interface and slot.
    pub fn is_attached(&self, id: &str, slot: Slot, interface: &Interface) -> Result<bool> {
        let attached = self.attacher.is_attached(id, slot, interface)?;
        if attached {
            self.interfaces()?.insert(id.to_owned(), interface.clone());
        }
        Ok(attached)
    }

    /// Puts a compiled policy in force in some slots; returns when the kernel enforces it. On an
    /// error the old policies stay in force.
    pub fn publish(&self, slots: &[Slot], compiled: &Compiled) -> Result<PolicyId> {
        self.policies.publish(slots, compiled)
    }

    /// What is in force in a slot; `None`: nothing, or it is not known.
    pub fn published(&self, slot: Slot) -> Result<Option<Published>> {
        self.policies.published(slot)
    }

    /// Puts back the pins of maps that somebody removed.
    pub fn restore_pins(&self) -> Result<()> {
        self.maps.restore()
    }

    /// Takes off the gates that are pinned under this name. It is no error when there are none.
    pub fn detach(&self, id: &str) -> Result<()> {
        let interface = {
            let mut interfaces = self.interfaces()?;
            let interface = interfaces.remove(id).or_else(|| Interface::of_gates(id));
            // Its filters may have been replaced under another name.
            interface.filter(|left| !interfaces.values().any(|kept| kept == left))
        };
        self.attacher.detach(id, interface.as_ref())?;
        self.retire_other_versions(id)
    }

    /// Whether an interface is a port of a bridge, which takes what would be handed over.
    ///
    /// # Errors
    ///
    /// When the namespace or the interface is not there.
    pub fn is_port(&self, interface: &Interface) -> Result<bool> {
        device::is_port(interface)
    }

    /// Opens a slot's door, in the namespace of the sandbox's interface, and has the kernel hand
    /// over through it. One that is open already is replaced.
    ///
    /// # Errors
    ///
    /// When the namespace is not there, or the kernel refuses a listener or a routing rule.
    pub fn open_door(&self, slot: Slot, interface: &Interface) -> Result<Door> {
        self.doors.open_door(slot, interface)
    }

    /// Hands nothing over for this slot any more. It is no error when it has no door. What is open
    /// of the door itself keeps its network namespace alive until it is dropped.
    pub fn close_door(&self, slot: Slot) -> Result<()> {
        self.doors.close_door(slot)
    }

    /// Empties a slot, which can be used again.
    pub fn release(&self, slot: Slot) -> Result<()> {
        self.doors.close_door(slot)?;
        self.sandboxes.clear(slot)?;
        self.policies.withdraw(slot)
    }

    /// Packets and bytes by reason, over all CPUs.
    pub fn counters(&self, slot: Slot) -> Result<Counters> {
        self.sandboxes.counters(slot)
    }

    /// Events that were not written, and the state of the token buckets.
    pub fn limits(&self, slot: Slot) -> Result<Limits> {
        self.sandboxes.limits(slot)
    }

    /// The ring of events. One reader at a time.
    pub fn events(&self) -> Result<EventReader> {
        let log = self.log.lock().map_err(|_| anyhow!("the log is poisoned by a panic"))?.take();
        EventReader::open(&self.pins, log)
    }

    /// Whether new flows that pass are reported, too.
    pub fn report_flows(&self, report: bool) -> Result<()> {
        self.report_flows.store(report, Ordering::Relaxed);
        self.sandboxes.set_flags(sandboxes::with_flows(self.flags, report))
    }

    /// The sandboxes, and the interfaces of `[[interfaces]]` ([`Interface::of_gates`]), that have pinned
    /// links, of whatever version.
    pub fn attached_ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for pins in Pins::every_version(&self.bpffs)? {
            ids.extend(pins.ids()?);
        }
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// The slot that a sandbox's pinned gates name, if that is certain.
    pub fn attached_slot(&self, id: &str) -> Result<Option<Slot>> {
        self.pins.slot(id)
    }

    /// The gates of a slot, for running them on a packet without an interface.
    pub fn gate(&self, slot: Slot) -> Result<Gate> {
        self.attacher.gates().open(slot)
    }

    /// Detaches everything and removes every pin, of whatever version, and the routing rules.
    /// `interfaces`: where clsact filters may be, and in whose namespaces rules. Returns the
    /// sandboxes that had links.
    pub fn cleanup(bpffs: &Path, interfaces: &[Interface]) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        interfaces.iter().for_each(filters::detach);
        for pins in Pins::every_version(bpffs)? {
            let pinned = pins.ids()?;
            pinned.iter().filter_map(|id| Interface::of_gates(id)).for_each(|interface| {
                filters::detach(&interface);
            });
            ids.extend(pinned);
            pins.remove_all()?;
        }
        doors::remove_routing(interfaces)?;
        Ok(ids)
    }

    /// The directories beside `bpffs` in which other agents have pins, and how many sandboxes and
    /// interfaces each has attached.
    #[must_use]
    pub fn others(bpffs: &Path) -> Vec<(PathBuf, usize)> {
        let Some(beside) = bpffs.parent() else { return Vec::new() };
        let directories = fs::read_dir(beside).into_iter().flatten().flatten();
        let others = directories.map(|entry| entry.path()).filter(|path| path != bpffs);
        let attached = |path: &PathBuf| -> usize {
            let versions = Pins::every_version(path).unwrap_or_default();
            versions.iter().map(|pins| pins.ids().map_or(0, |ids| ids.len())).sum()
        };
        let mut found: Vec<_> = others.map(|path| (path.clone(), attached(&path))).collect();
        found.retain(|(_, count)| *count > 0);
        found.sort();
        found
    }

    /// Removes what another version of the agent attached for a sandbox; it stayed in force until
    /// now.
    fn retire_other_versions(&self, id: &str) -> Result<()> {
        for pins in Pins::every_version(&self.bpffs)?.iter().filter(|pins| !pins.is_current()) {
            pins.remove_links(id)?;
            if pins.ids()?.is_empty() {
                pins.remove_all()?;
            }
        }
        Ok(())
    }

    fn interfaces(&self) -> Result<std::sync::MutexGuard<'_, HashMap<String, Interface>>> {
        self.interfaces.lock().map_err(|_| anyhow!("the table of interfaces is poisoned"))
    }
}

/// Kernels before 5.11 charge maps to RLIMIT_MEMLOCK; a thousand policies need descriptors, and so do
/// ten thousand connections through the egress proxy.
fn raise_limits() {
    // Without the right to raise them, the calls that need more say so.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let most = fs::read_to_string("/proc/sys/fs/nr_open").ok();
        let most = most.and_then(|text| text.trim().parse().ok()).unwrap_or(hard).max(hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}
