//! Berths: the interfaces of `[[interfaces]]`. (A slot is a number in the kernel's tables.)
//!
//! The gates of a berth stay on it, under a name of its own, and are pointed to the slot of the
//! sandbox that has it, or to an empty slot, which denies everything, while nobody does. So handing
//! out and taking back are one step for every packet, and what still runs behind a vacant berth
//! reaches nothing.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};

use super::{
    interface_state::{InterfaceState, NamespaceId, namespace_id},
    reconciler::{Reconciler, validate::SandboxOwnershipIndex},
    sandbox::{AttachPoint, Sandbox, interface_for},
};
use crate::{
    dataplane::{HostInterface, Slot},
    policy::{MacAddress, NetworkConfig, SandboxId, SandboxSpec},
};

/// One interface of `[[interfaces]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PooledInterface {
    /// Where it is.
    pub interface: HostInterface,
    /// Addresses of whoever is behind it.
    pub addresses: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Option<MacAddress>,
    /// Whether it may be an interface that the host needs for itself.
    pub force: bool,
}

impl PooledInterface {
    /// A sandbox on it.
    #[must_use]
    pub fn sandbox_spec(
        &self,
        id: &SandboxId,
        network: NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> SandboxSpec {
        SandboxSpec {
            sandbox_id: id.clone(),
            interface: self.interface.name.clone(),
            netns: self.interface.netns.clone(),
            addresses: self.addresses.clone(),
            mac: self.mac,
            allow_internet_access,
            network,
        }
    }

    /// Its namespace, if that is there.
    fn namespace_id(&self) -> Option<NamespaceId> {
        namespace_id(self.interface.netns.as_deref()).ok()
    }
}

/// All berths.
#[derive(Debug, Default)]
pub struct InterfacePool {
    interfaces: Arc<[PooledInterface]>,
    /// Where the gates of vacant berths point.
    empty_slot: Option<Slot>,
    /// What is known of the vacant ones, by the name of their gates.
    idle_states: HashMap<String, IdleInterfaceState>,
}

/// How the last attempt to shut a vacant berth went.
#[derive(Debug, PartialEq, Eq)]
enum IdleInterfaceState {
    Blocked(AttachPoint),
    /// It is not there; it is shut when it appears.
    Missing,
    /// It is open or not known to be shut, and why.
    Failed(String),
}

impl InterfacePool {
    /// Berths of which nothing is known yet.
    #[must_use]
    pub fn new(interfaces: Arc<[PooledInterface]>) -> Self {
        Self { interfaces, ..Self::default() }
    }

    /// Under which name the gates of a sandbox are pinned: its own, or that of its berth.
    pub(super) fn pin_name(&self, spec: &SandboxSpec) -> Arc<str> {
        let gates = self.find(&interface_for(spec)).and_then(|pooled| pooled.interface.pin_name());
        gates.map_or_else(|| spec.sandbox_id.as_str().into(), Arc::from)
    }

    /// The berth at an interface, however the path of its namespace is written.
    fn find(&self, interface: &HostInterface) -> Option<&PooledInterface> {
        if let Some(pooled) = self.interfaces.iter().find(|berth| berth.interface == *interface) {
            return Some(pooled);
        }
        let mut same_name =
            self.interfaces.iter().filter(|pooled| pooled.interface.name == interface.name);
        let namespace_id = namespace_id(interface.netns.as_deref()).ok()?;
        same_name.find(|pooled| pooled.namespace_id() == Some(namespace_id))
    }

    /// Whether gates of this name are a berth's.
    pub(super) fn owns_pin(&self, gates: &str) -> bool {
        let interface = HostInterface::from_pin_name(gates);
        interface.is_some_and(|interface| {
            self.interfaces.iter().any(|pooled| pooled.interface == interface)
        })
    }
}

/// Who has which interface.
struct InterfacesInUse {
    pin_names: HashSet<Arc<str>>,
    ownership: SandboxOwnershipIndex,
}

impl InterfacesInUse {
    fn contains(&self, reconciler: &Reconciler, pooled: &PooledInterface) -> bool {
        if pooled.interface.pin_name().is_some_and(|gates| self.pin_names.contains(gates.as_str()))
        {
            return true;
        }
        let Some(namespace_id) = pooled.namespace_id() else { return false };
        let owner = self.ownership.interface_owner(namespace_id, &pooled.interface.name);
        owner.is_some_and(|owner| reconciler.is_in_namespace(&owner.id, namespace_id))
    }
}

impl Reconciler {
    /// A sandbox on a berth that is there and that nobody has.
    pub(super) fn find_free_interface(
        &self,
        spec: impl Fn(&PooledInterface) -> SandboxSpec,
    ) -> Option<SandboxSpec> {
        let in_use = self.interfaces_in_use();
        let free =
            self.interface_pool.interfaces.iter().filter(|pooled| !in_use.contains(self, pooled));
        let is_assignable = |spec: &SandboxSpec, force| {
            self.validate_endpoint(spec, &mut self.ownership_index(&[]), force).is_ok()
        };
        free.map(|pooled| (spec(pooled), pooled.force))
            .find_map(|(spec, force)| is_assignable(&spec, force).then_some(spec))
    }

    fn interfaces_in_use(&self) -> InterfacesInUse {
        let pin_name = self.registry.all().iter().map(|sandbox| sandbox.pin_name.clone()).collect();
        InterfacesInUse { pin_names: pin_name, ownership: self.ownership_index(&[]) }
    }

    /// Finds the slot where the gates of vacant berths point, and makes sure that it is empty. The
    /// sandboxes have their slots by now.
    pub(super) fn adopt_interface_pool(&mut self) -> Result<()> {
        let mut current_slot = None;
        for pooled in &*self.interface_pool.interfaces {
            let Some(gates) = pooled.interface.pin_name() else { continue };
            let slot = self.dataplane.attached_slot(&gates)?;
            current_slot =
                current_slot.or(slot.filter(|slot| !self.slot_allocator.is_allocated(*slot)));
        }
        if self.interface_pool.interfaces.is_empty() {
            return Ok(());
        }
        let slot = match current_slot {
            Some(slot) if self.slot_allocator.reserve(slot) => slot,
            _ => self.slot_allocator.allocate().context("every slot is taken")?,
        };
        // An agent that died while it took a berth back left its sandbox's policy there.
        self.dataplane.release_slot(slot).context("cannot empty a slot")?;
        self.interface_pool.empty_slot = Some(slot);
        self.block_idle_interfaces(&Arc::clone(&self.interface_pool.interfaces));
        Ok(())
    }

    /// Shuts those of these berths that nobody has. Does nothing where they are shut.
    pub fn block_idle_interfaces(&mut self, pooled_interfaces: &[PooledInterface]) {
        let in_use = self.interfaces_in_use();
        for pooled in pooled_interfaces {
            let Some(gates) = pooled.interface.pin_name() else { continue };
            if in_use.contains(self, pooled) {
                self.interface_pool.idle_states.remove(&gates);
            } else {
                self.check_idle_interface(gates, pooled);
            }
        }
    }

    fn check_idle_interface(&mut self, gates: String, pooled: &PooledInterface) {
        let interface = &pooled.interface;
        let before = self.interface_pool.idle_states.get(&gates);
        if let (Some(IdleInterfaceState::Blocked(_)), Some(empty_slot)) =
            (before, self.interface_pool.empty_slot)
            && self.are_gates_attached(&gates, empty_slot, interface)
        {
            return;
        }
        let now = match self.block_unless_uplink(&gates, pooled) {
            Ok(Some(attach_point)) => IdleInterfaceState::Blocked(attach_point),
            Ok(None) => IdleInterfaceState::Missing,
            Err(error) => IdleInterfaceState::Failed(format!("{error:#}")),
        };
        if before != Some(&now) {
            let name = &interface.name;
            match &now {
                IdleInterfaceState::Blocked(_) => {
                    tracing::info!(interface = name, "vacant, and shut")
                }
                IdleInterfaceState::Missing => {
                    tracing::info!(interface = name, "vacant, and missing")
                }
                IdleInterfaceState::Failed(error) => {
                    tracing::error!(interface = name, "vacant, but cannot be shut: {error}");
                }
            }
        }
        self.interface_pool.idle_states.insert(gates, now);
    }

    /// Shuts a berth that nobody has, unless the host needs its interface for itself.
    fn block_unless_uplink(
        &self,
        gates: &str,
        pooled: &PooledInterface,
    ) -> Result<Option<AttachPoint>> {
        if !pooled.force
            && matches!(
                self.dataplane.interface_state(&pooled.interface),
                InterfaceState::Present(_)
            )
        {
            self.reject_uplink(&pooled.interface)?;
        }
        self.block_interface(gates, &pooled.interface)
    }

    /// Points the gates of a berth to the empty slot, wherever they pointed before. `None`: there is
    /// no such interface, which takes no gates to shut.
    fn block_interface(
        &self,
        gates: &str,
        interface: &HostInterface,
    ) -> Result<Option<AttachPoint>> {
        let empty_slot = self.interface_pool.empty_slot.context("there is no empty slot")?;
        match self.dataplane.interface_state(interface) {
            InterfaceState::Present(_) => self.attach_gates(gates, empty_slot, interface).map(Some),
            InterfaceState::Unknown(problem) => bail!("cannot look for the interface: {problem}"),
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => Ok(None),
        }
    }

    /// Takes a sandbox off its interface: a berth is shut, any other is left as it was before.
    pub(super) fn detach_sandbox(&self, sandbox: &Sandbox) -> Result<()> {
        if self.interface_pool.owns_pin(&sandbox.pin_name)
            && self
                .block_interface(&sandbox.pin_name, &interface_for(&sandbox.base_spec))?
                .is_some()
        {
            return Ok(());
        }
        self.dataplane.detach(&sandbox.pin_name)
    }
}
