//! The interfaces of `[[interfaces]]`, which the agent assigns to sandboxes and takes back.
//!
//! The gates of such an interface stay attached and are pinned under a name of the interface's own.
//! They point to the slot of its sandbox or, while the interface is idle, to an empty slot, which
//! denies everything. Assigning and releasing an interface is therefore atomic for every packet,
//! and a workload that still runs behind an idle interface reaches nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail};

use super::{
    attachments::Attachments,
    dataplane_control::DataplaneControl,
    endpoint_validator::{EndpointValidator, HostAddresses, SandboxOwnershipIndex},
    interface_state::{InterfaceState, namespace_id},
    pooled_interface::PooledInterface,
    sandbox::{AttachPoint, Sandbox, interface_for, slot_allocator::SlotAllocator},
};
use crate::{
    dataplane::{HostInterface, Slot},
    policy::SandboxSpec,
};

/// All interfaces of `[[interfaces]]`.
pub(crate) struct InterfacePool {
    dataplane: Arc<dyn DataplaneControl>,
    interfaces: Arc<[PooledInterface]>,
    /// The slot that the gates of idle interfaces point to.
    empty_slot: Option<Slot>,
    /// The states of the idle interfaces, by the pin names of their gates.
    idle_states: HashMap<String, IdleInterfaceState>,
}

/// The result of the last attempt to block an idle interface.
#[derive(Debug, PartialEq, Eq)]
enum IdleInterfaceState {
    Blocked(AttachPoint),
    /// The interface does not exist. It is blocked when it appears.
    Missing,
    /// The interface may be unblocked, for this reason.
    Failed(String),
}

/// The interfaces that sandboxes use.
struct InterfacesInUse {
    pin_names: HashSet<Arc<str>>,
    ownership: SandboxOwnershipIndex,
}

impl InterfacePool {
    /// Starts without a known state of any interface.
    pub(crate) fn new(
        dataplane: Arc<dyn DataplaneControl>,
        interfaces: Arc<[PooledInterface]>,
    ) -> Self {
        Self { dataplane, interfaces, empty_slot: None, idle_states: HashMap::new() }
    }

    /// Returns the name under which the gates of a sandbox are pinned: its ID, or the pin name of
    /// its interface if the interface is in the pool.
    pub(crate) fn pin_name(&self, spec: &SandboxSpec) -> Arc<str> {
        let pooled = self.find(&interface_for(spec));
        let pin_name = pooled.and_then(|pooled| pooled.interface.pin_name());
        pin_name.map_or_else(|| spec.sandbox_id.as_str().into(), Arc::from)
    }

    /// Finds an interface in the pool, even if the path of its namespace is written differently.
    fn find(&self, interface: &HostInterface) -> Option<&PooledInterface> {
        if let Some(pooled) = self.interfaces.iter().find(|pooled| pooled.interface == *interface) {
            return Some(pooled);
        }
        let mut same_name =
            self.interfaces.iter().filter(|pooled| pooled.interface.name == interface.name);
        let namespace_id = namespace_id(interface.netns.as_deref()).ok()?;
        same_name.find(|pooled| pooled.namespace_id() == Some(namespace_id))
    }

    /// Returns whether gates with this name belong to an interface of the pool.
    pub(crate) fn owns_pin(&self, pin_name: &str) -> bool {
        let interface = HostInterface::from_pin_name(pin_name);
        interface.is_some_and(|interface| {
            self.interfaces.iter().any(|pooled| pooled.interface == interface)
        })
    }

    /// Returns the specification of a sandbox on an interface that exists and is idle.
    pub(crate) fn find_free(
        &self,
        endpoints: &EndpointValidator,
        spec: impl Fn(&PooledInterface) -> SandboxSpec,
    ) -> Option<SandboxSpec> {
        let in_use = InterfacesInUse::collect(endpoints);
        let idle = self.interfaces.iter().filter(|pooled| !in_use.contains(endpoints, pooled));
        let mut host_addresses = HostAddresses::new();
        idle.map(|pooled| (spec(pooled), pooled.force)).find_map(|(spec, force)| {
            let mut ownership = in_use.ownership.clone();
            let valid = endpoints.validate(&spec, &mut ownership, &mut host_addresses, force);
            valid.is_ok().then_some(spec)
        })
    }

    /// Finds the slot that the gates of idle interfaces point to, or allocates one. Empties it and
    /// blocks the idle interfaces. The slots of sandboxes must be reserved already.
    pub(crate) fn adopt(
        &mut self,
        slots: &mut SlotAllocator,
        endpoints: &EndpointValidator,
        attachments: &Attachments,
    ) -> Result<()> {
        let mut current_slot = None;
        for pooled in &*self.interfaces {
            let Some(pin_name) = pooled.interface.pin_name() else { continue };
            let slot = self.dataplane.attached_slot(&pin_name)?;
            current_slot = current_slot.or(slot.filter(|slot| !slots.is_allocated(*slot)));
        }
        if self.interfaces.is_empty() {
            return Ok(());
        }
        let slot = match current_slot {
            Some(slot) if slots.reserve(slot) => slot,
            _ => slots.take_free().context("every slot is taken")?,
        };
        // If an agent died while it released an interface, the slot still holds the sandbox's
        // policy.
        self.dataplane.release_slot(slot).context("cannot empty a slot")?;
        self.empty_slot = Some(slot);
        self.block_idle(&Arc::clone(&self.interfaces), endpoints, attachments);
        Ok(())
    }

    /// Blocks the interfaces among these that are idle and not blocked yet.
    pub(crate) fn block_idle(
        &mut self,
        interfaces: &[PooledInterface],
        endpoints: &EndpointValidator,
        attachments: &Attachments,
    ) {
        let in_use = InterfacesInUse::collect(endpoints);
        for pooled in interfaces {
            let Some(pin_name) = pooled.interface.pin_name() else { continue };
            if in_use.contains(endpoints, pooled) {
                self.idle_states.remove(&pin_name);
            } else {
                self.check_idle(pin_name, pooled, endpoints, attachments);
            }
        }
    }

    fn check_idle(
        &mut self,
        pin_name: String,
        pooled: &PooledInterface,
        endpoints: &EndpointValidator,
        attachments: &Attachments,
    ) {
        let interface = &pooled.interface;
        let before = self.idle_states.get(&pin_name);
        if let (Some(IdleInterfaceState::Blocked(_)), Some(slot)) = (before, self.empty_slot)
            && attachments.is_attached(&pin_name, slot, interface)
        {
            return;
        }
        let now = match self.block_unless_uplink(&pin_name, pooled, endpoints, attachments) {
            Ok(Some(attach_point)) => IdleInterfaceState::Blocked(attach_point),
            Ok(None) => IdleInterfaceState::Missing,
            Err(error) => IdleInterfaceState::Failed(format!("{error:#}")),
        };
        if before != Some(&now) {
            now.log(&interface.name);
        }
        self.idle_states.insert(pin_name, now);
    }

    fn block_unless_uplink(
        &self,
        pin_name: &str,
        pooled: &PooledInterface,
        endpoints: &EndpointValidator,
        attachments: &Attachments,
    ) -> Result<Option<AttachPoint>> {
        let state = self.dataplane.interface_state(&pooled.interface);
        if !pooled.force && matches!(state, InterfaceState::Present(_)) {
            let rejected = endpoints.reject_uplink(&pooled.interface);
            // It may have been guarded while it was missing.
            rejected.or_else(|error| attachments.release_guard(pin_name).and(Err(error.into())))?;
        }
        self.block(pin_name, &pooled.interface, attachments)
    }

    /// Points the gates of an interface to the empty slot, regardless of where they pointed before.
    /// Returns `None` if the interface does not exist.
    fn block(
        &self,
        pin_name: &str,
        interface: &HostInterface,
        attachments: &Attachments,
    ) -> Result<Option<AttachPoint>> {
        let empty_slot = self.empty_slot.context("there is no empty slot")?;
        match self.dataplane.interface_state(interface) {
            InterfaceState::Present(_) => {
                attachments.attach(pin_name, empty_slot, interface).map(Some)
            }
            InterfaceState::Unknown(problem) => bail!("cannot look for the interface: {problem}"),
            InterfaceState::NoInterface | InterfaceState::NoNamespace(_) => {
                attachments.guard_missing(pin_name, empty_slot, interface);
                Ok(None)
            }
        }
    }

    /// Detaches a sandbox from its interface. An interface of the pool is blocked. Any other is
    /// left without gates.
    pub(crate) fn detach_sandbox(
        &self,
        sandbox: &Sandbox,
        attachments: &Attachments,
    ) -> Result<()> {
        let interface = interface_for(&sandbox.base_spec);
        let slot = self.empty_slot.filter(|_| self.owns_pin(&sandbox.pin_name));
        let Some(slot) = slot else { return attachments.detach(&sandbox.pin_name) };
        match self.block(&sandbox.pin_name, &interface, attachments)? {
            Some(_) => Ok(()),
            None => attachments.detach_missing(&sandbox.pin_name, slot, &interface),
        }
    }
}

impl IdleInterfaceState {
    fn log(&self, interface: &str) {
        match self {
            Self::Blocked(_) => tracing::info!(interface, "idle, and blocked"),
            Self::Missing => tracing::info!(interface, "idle, and missing"),
            Self::Failed(error) => {
                tracing::error!(interface, "idle, but cannot be blocked: {error}");
            }
        }
    }
}

impl InterfacesInUse {
    fn collect(endpoints: &EndpointValidator) -> Self {
        Self { pin_names: endpoints.pin_names(), ownership: endpoints.ownership_index(&[]) }
    }

    fn contains(&self, endpoints: &EndpointValidator, pooled: &PooledInterface) -> bool {
        let pin_name = pooled.interface.pin_name();
        if pin_name.is_some_and(|pin_name| self.pin_names.contains(pin_name.as_str())) {
            return true;
        }
        let Some(namespace_id) = pooled.namespace_id() else { return false };
        let owner = self.ownership.interface_owner(namespace_id, &pooled.interface.name);
        owner.is_some_and(|owner| endpoints.is_in_namespace(&owner.id, namespace_id))
    }
}
