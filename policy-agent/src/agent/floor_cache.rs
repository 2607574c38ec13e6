//! The floor in each network namespace that has sandboxes' interfaces: the operator's lists, and the
//! host's own addresses there. The kernel is asked for them when a sandbox comes and at every scan.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Result;
use ipnet::IpNet;

use super::{
    dataplane_control::DataplaneControl,
    interface_state::{NamespaceId, namespace_id},
    sandbox::registry::SandboxRegistry,
};
use crate::policy::Floor;

/// What is known of the namespaces.
pub(crate) struct FloorCache {
    dataplane: Arc<dyn DataplaneControl>,
    /// Of a namespace that is not there.
    base: Arc<Floor>,
    by_namespace: HashMap<NamespaceId, CachedFloor>,
}

struct CachedFloor {
    /// As the kernel tells them.
    addresses: Vec<IpNet>,
    floor: Arc<Floor>,
}

impl FloorCache {
    /// Nothing is known yet but the operator's lists.
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>, floor: &Floor) -> Self {
        Self { dataplane, base: Arc::new(floor.clone()), by_namespace: HashMap::new() }
    }

    /// The floor in a namespace, by the addresses that the host has there now. Where there is no such
    /// namespace, nothing can be attached, and the operator's lists are all.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(crate) fn refresh(&mut self, netns: Option<&Path>) -> Result<Arc<Floor>> {
        let Ok(namespace_id) = namespace_id(netns) else { return Ok(Arc::clone(&self.base)) };
        let addresses = self.dataplane.host_addresses(netns)?;
        if let Some(cached) = self.by_namespace.get(&namespace_id)
            && cached.addresses == addresses
        {
            return Ok(Arc::clone(&cached.floor));
        }
        let floor = self.reuse_equal(self.base.with_host_addresses(&addresses));
        if floor.has_widened_host_addresses(&addresses) {
            tracing::warn!(
                netns = ?netns,
                addresses = addresses.len(),
                "the host has too many addresses of its own: sandboxes are kept from wider networks"
            );
        }
        self.by_namespace
            .insert(namespace_id, CachedFloor { addresses, floor: Arc::clone(&floor) });
        Ok(floor)
    }

    /// The same without asking the kernel; `None`: it is not known, or there is no such namespace.
    pub(crate) fn get(&self, netns: Option<&Path>) -> Option<Arc<Floor>> {
        let cached = self.by_namespace.get(&namespace_id(netns).ok()?)?;
        Some(Arc::clone(&cached.floor))
    }

    /// An equal floor that is in use somewhere, or this one.
    fn reuse_equal(&self, floor: Floor) -> Arc<Floor> {
        let mut in_use = self.by_namespace.values().map(|known| &known.floor).chain([&self.base]);
        let equal = in_use.find(|cached| cached.host_addresses == floor.host_addresses).cloned();
        equal.unwrap_or_else(|| Arc::new(floor))
    }

    /// The floor for a sandbox that is adopted. Where the kernel does not tell the host's addresses,
    /// every address may be one.
    pub(crate) fn get_or_refresh(&mut self, netns: Option<&Path>) -> Arc<Floor> {
        if let Some(cached) = self.get(netns) {
            return cached;
        }
        self.refresh(netns).unwrap_or_else(|error| {
            tracing::error!(?netns, "{error:#}: only platform_allow stays open");
            Arc::new(self.base.with_unknown_host_addresses())
        })
    }

    /// Asks for the host's addresses in these namespaces. Where the kernel does not tell them, the
    /// known ones stay.
    pub(crate) fn refresh_all(&mut self, namespaces: &[Option<PathBuf>]) {
        for netns in namespaces {
            if let Err(error) = self.refresh(netns.as_deref()) {
                tracing::error!(?netns, "{error:#}: those that it had stay closed");
            }
        }
    }

    /// Forgets namespaces that no sandbox is in any more: the kernel may use their numbers again.
    pub(crate) fn prune(&mut self, registry: &SandboxRegistry) {
        let paths: HashSet<_> =
            registry.all().iter().map(|sandbox| sandbox.base_spec.netns.clone()).collect();
        let used: HashSet<NamespaceId> =
            paths.iter().filter_map(|path| namespace_id(path.as_deref()).ok()).collect();
        self.by_namespace.retain(|namespace_id, _| used.contains(namespace_id));
    }
}
