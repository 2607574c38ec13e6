//! Caches the floor of each network namespace with interfaces of sandboxes: the operator's lists,
//! and the host's own addresses there. The addresses are read from the kernel when a sandbox is
//! added and at every scan.

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

/// The cached floors.
pub(crate) struct FloorCache {
    dataplane: Arc<dyn DataplaneControl>,
    /// The operator's lists alone, for a namespace that does not exist.
    base: Arc<Floor>,
    by_namespace: HashMap<NamespaceId, CachedFloor>,
}

struct CachedFloor {
    /// The host's addresses as the kernel reports them.
    addresses: Vec<IpNet>,
    floor: Arc<Floor>,
}

impl FloorCache {
    /// Starts with the operator's lists only.
    pub(crate) fn new(dataplane: Arc<dyn DataplaneControl>, floor: &Floor) -> Self {
        Self { dataplane, base: Arc::new(floor.clone()), by_namespace: HashMap::new() }
    }

    /// Returns the floor of a namespace with the addresses that the host has there now. If the
    /// namespace does not exist, nothing can be attached there, and the floor consists of the
    /// operator's lists alone.
    ///
    /// # Errors
    /// The kernel does not report the addresses.
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

    /// Replaces the operator's lists. The host's addresses stay as they were read.
    pub(crate) fn replace_lists(&mut self, lists: &Floor) {
        self.base = Arc::new(lists.clone());
        for (namespace_id, CachedFloor { addresses, .. }) in std::mem::take(&mut self.by_namespace)
        {
            let floor = self.reuse_equal(self.base.with_host_addresses(&addresses));
            self.by_namespace.insert(namespace_id, CachedFloor { addresses, floor });
        }
    }

    /// Returns the cached floor of a namespace without querying the kernel. `None` if it is not
    /// cached or the namespace does not exist.
    pub(crate) fn get(&self, netns: Option<&Path>) -> Option<Arc<Floor>> {
        let cached = self.by_namespace.get(&namespace_id(netns).ok()?)?;
        Some(Arc::clone(&cached.floor))
    }

    /// Returns an equal floor that is already in use, or this one.
    fn reuse_equal(&self, floor: Floor) -> Arc<Floor> {
        let mut in_use = self.by_namespace.values().map(|known| &known.floor).chain([&self.base]);
        let equal = in_use.find(|cached| cached.host_addresses == floor.host_addresses).cloned();
        equal.unwrap_or_else(|| Arc::new(floor))
    }

    /// Returns the floor for an adopted sandbox. If the kernel does not report the host's
    /// addresses, the floor treats every address as one of them.
    pub(crate) fn get_or_refresh(&mut self, netns: Option<&Path>) -> Arc<Floor> {
        if let Some(cached) = self.get(netns) {
            return cached;
        }
        self.refresh(netns).unwrap_or_else(|error| {
            tracing::error!(?netns, "{error:#}: only platform_allow stays open");
            Arc::new(self.base.with_unknown_host_addresses())
        })
    }

    /// Reads the host's addresses in these namespaces from the kernel. If that fails, the cached
    /// addresses stay.
    pub(crate) fn refresh_all(&mut self, namespaces: &[Option<PathBuf>]) {
        for netns in namespaces {
            if let Err(error) = self.refresh(netns.as_deref()) {
                tracing::error!(?netns, "{error:#}: those that it had stay closed");
            }
        }
    }

    /// Drops namespaces that contain no sandbox any more. The kernel may reuse their inode numbers.
    pub(crate) fn prune(&mut self, registry: &SandboxRegistry) {
        let paths = registry.namespaces();
        let used: HashSet<NamespaceId> =
            paths.iter().filter_map(|path| namespace_id(path.as_deref()).ok()).collect();
        self.by_namespace.retain(|namespace_id, _| used.contains(namespace_id));
    }
}
