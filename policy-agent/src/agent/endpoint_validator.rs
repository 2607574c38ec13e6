//! Validates where a sandbox is: its interface exists, belongs to no other sandbox and is not one
//! that the host itself needs, and no other sandbox in that network namespace has its addresses.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    dataplane_control::DataplaneControl,
    interface_state::{NamespaceId, namespace_id},
    sandbox::{Sandbox, interface_for, registry::SandboxRegistry},
};
use crate::{
    dataplane::HostInterface,
    policy::{
        SandboxId, SandboxSpec, ValidationError,
        sandbox_conflicts::{self, address_conflict, interface_conflict},
    },
};

/// The loopback interface, which every network namespace has.
const LOOPBACK: &str = crate::policy::LOOPBACK_INTERFACE;

/// The interfaces and addresses that sandboxes have or request.
pub(super) type SandboxOwnershipIndex =
    sandbox_conflicts::OwnershipIndex<NamespaceId, EndpointOwner>;

/// The sandbox that has or requests an interface or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointOwner {
    /// The ID of the sandbox.
    pub id: SandboxId,
    /// Whether the sandbox has it already. Its namespace was recorded when it was attached, and may
    /// be out of date.
    is_existing: bool,
}

impl EndpointOwner {
    fn existing(id: &SandboxId) -> Self {
        Self { id: id.clone(), is_existing: true }
    }

    fn requested(id: &SandboxId) -> Self {
        Self { id: id.clone(), is_existing: false }
    }
}

/// The host's addresses by network namespace, read once per request.
pub(crate) type HostAddresses = HashMap<Option<PathBuf>, Vec<IpNet>>;

/// Checks interfaces and addresses against those of the host and of other sandboxes.
pub(crate) struct EndpointValidator {
    dataplane: Arc<dyn DataplaneControl>,
    registry: Arc<SandboxRegistry>,
}

impl EndpointValidator {
    pub(crate) fn new(
        dataplane: Arc<dyn DataplaneControl>,
        registry: Arc<SandboxRegistry>,
    ) -> Self {
        Self { dataplane, registry }
    }

    /// Returns the names under which the gates of sandboxes are pinned.
    pub(crate) fn pin_names(&self) -> HashSet<Arc<str>> {
        self.registry.all().iter().map(|sandbox| Arc::clone(&sandbox.pin_name)).collect()
    }

    /// Indexes the interfaces and addresses of all sandboxes, except for the addresses of sandboxes
    /// that are about to be replaced.
    pub(crate) fn ownership_index(&self, replaced: &[SandboxSpec]) -> SandboxOwnershipIndex {
        let replaced: HashSet<&SandboxId> = replaced.iter().map(|spec| &spec.sandbox_id).collect();
        let mut ownership = SandboxOwnershipIndex::default();
        for sandbox in self.registry.all() {
            let id = sandbox.id();
            let current_namespace = sandbox.attach_point.and_then(|place| place.namespace);
            if let Some(namespace_id) = current_namespace {
                ownership.assign_interface(
                    namespace_id,
                    &sandbox.base_spec.interface,
                    EndpointOwner::existing(id),
                );
            }
            if replaced.contains(id) {
                continue;
            }
            let Some(namespace_id) = current_namespace.or_else(|| expected_namespace(&sandbox))
            else {
                continue;
            };
            for address in &sandbox.base_spec.addresses {
                ownership.assign_address(namespace_id, *address, EndpointOwner::existing(id));
            }
        }
        ownership
    }

    /// Validates a sandbox and adds it to `ownership`. An interface must exist before the kernel
    /// can enforce a policy on it, and it belongs to one sandbox only. So does an address within a
    /// network namespace. `force` allows interfaces that the host itself needs.
    pub(crate) fn validate(
        &self,
        spec: &SandboxSpec,
        ownership: &mut SandboxOwnershipIndex,
        host_addresses: &mut HostAddresses,
        force: bool,
    ) -> Result<(), ValidationError> {
        if spec.is_stopped_container() {
            return Ok(());
        }
        let interface = interface_for(spec);
        let known = self.registry.get(&spec.sandbox_id);
        let keeps_endpoint = self.keeps_endpoint(spec);
        if known.is_none_or(|sandbox| interface_for(&sandbox.base_spec) != interface) {
            self.dataplane.interface_state(&interface).require_index(&interface)?;
            if !force {
                self.reject_uplink(&interface)?;
            }
        }
        if !keeps_endpoint {
            self.validate_addresses(spec, host_addresses)?;
        }
        // The namespace of a known sandbox may be missing. No other sandbox can be in it then.
        let Ok(namespace_id) = namespace_id(spec.netns.as_deref()) else { return Ok(()) };
        let id = &spec.sandbox_id;
        let owner =
            ownership.assign_interface(namespace_id, &interface.name, EndpointOwner::requested(id));
        if let Some(owner) =
            owner.filter(|owner| self.conflicts_with(owner, id, namespace_id, keeps_endpoint))
        {
            return Err(interface_conflict(&interface.name, owner.id.as_str()));
        }
        for (index, address) in spec.addresses.iter().enumerate() {
            let owner =
                ownership.assign_address(namespace_id, *address, EndpointOwner::requested(id));
            if let Some(owner) =
                owner.filter(|owner| self.conflicts_with(owner, id, namespace_id, keeps_endpoint))
            {
                return Err(address_conflict(index, *address, owner.id.as_str(), id.as_str()));
            }
        }
        Ok(())
    }

    /// Rejects addresses of the host itself. Clients of the sandbox's public URLs would reach the
    /// host.
    fn validate_addresses(
        &self,
        spec: &SandboxSpec,
        host_addresses: &mut HostAddresses,
    ) -> Result<(), ValidationError> {
        let addresses = &spec.addresses;
        let reject = |index: usize, problem: String| {
            let address = addresses.get(index).map(ToString::to_string).unwrap_or_default();
            Err(ValidationError::about_entry(format!("addresses[{index}]"), address, problem))
        };
        let read = match host_addresses.entry(spec.netns.clone()) {
            Entry::Occupied(known) => Ok(&*known.into_mut()),
            Entry::Vacant(unknown) => {
                let read = self.dataplane.host_addresses(spec.netns.as_deref());
                read.map(|addresses| &*unknown.insert(addresses))
            }
        };
        match read {
            Ok(host_addresses) => match addresses
                .iter()
                .position(|address| host_addresses.iter().any(|network| network.contains(address)))
            {
                None => Ok(()),
                Some(index) => reject(
                    index,
                    "belongs to the host itself; write the address that the sandbox has".to_owned(),
                ),
            },
            // A sandbox can be changed while its namespace is missing.
            Err(_) if namespace_id(spec.netns.as_deref()).is_err() => Ok(()),
            Err(error) => reject(0, format!("cannot be looked for on the host: {error:#}")),
        }
    }

    /// Rejects an interface that the host itself needs. A policy on it would cut the host off.
    pub(crate) fn reject_uplink(&self, interface: &HostInterface) -> Result<(), ValidationError> {
        let reject = |problem: &str| {
            Err(ValidationError::about_entry("interface", &interface.name, problem))
        };
        if interface.name == LOOPBACK {
            return reject(
                "is the loopback interface, which no sandbox is behind; name its tap or veth",
            );
        }
        match self.dataplane.carries_default_route(interface) {
            Ok(false) => Ok(()),
            Ok(true) => reject(
                "carries the default route of its network namespace: a policy on it would cut the \
                 host off; name the sandbox's own tap or veth, or force it",
            ),
            Err(error) => reject(&format!(
                "cannot find out whether it carries the host's default route: {error:#}; force it \
                 if you are sure"
            )),
        }
    }

    /// Returns whether this sandbox exists with the same interface and addresses.
    pub(crate) fn keeps_endpoint(&self, spec: &SandboxSpec) -> bool {
        self.registry.get(&spec.sandbox_id).is_some_and(|sandbox| sandbox.has_same_endpoint(spec))
    }

    /// Returns whether another sandbox's entry is a conflict. A requested one always is. An
    /// existing one is only if its sandbox is still in that namespace, and never for a sandbox that
    /// keeps its endpoint.
    fn conflicts_with(
        &self,
        owner: &EndpointOwner,
        id: &SandboxId,
        namespace_id: NamespaceId,
        keeps_endpoint: bool,
    ) -> bool {
        let is_there = || !keeps_endpoint && self.is_in_namespace(&owner.id, namespace_id);
        owner.id != *id && (!owner.is_existing || is_there())
    }

    /// Returns whether a sandbox is in this namespace now. The namespace recorded at attachment may
    /// be out of date: the kernel reuses the inode numbers of deleted namespaces.
    pub(crate) fn is_in_namespace(&self, id: &SandboxId, expected_id: NamespaceId) -> bool {
        let Some(sandbox) = self.registry.get(id) else { return true };
        namespace_id(sandbox.base_spec.netns.as_deref()).is_ok_and(|found| found == expected_id)
    }
}

/// Returns the namespace in which a sandbox will be attached.
fn expected_namespace(sandbox: &Arc<Sandbox>) -> Option<NamespaceId> {
    namespace_id(sandbox.base_spec.netns.as_deref()).ok()
}
