//! The floor in each network namespace that has sandboxes' interfaces: the operator's lists, and the
//! host's own addresses there. They are asked for when a sandbox comes, and followed at every look.

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
    reconciler::{Reconciler, publish, stage::StagedChange},
    sandbox::Sandbox,
};
use crate::policy::{Floor, SandboxId};

/// What is known of the namespaces.
#[derive(Debug)]
pub struct FloorCache {
    /// Of a namespace that is not there.
    base: Arc<Floor>,
    by_namespace: HashMap<NamespaceId, CachedFloor>,
}

#[derive(Debug)]
struct CachedFloor {
    /// As the kernel tells them.
    addresses: Vec<IpNet>,
    floor: Arc<Floor>,
}

impl FloorCache {
    /// Nothing is known yet but the operator's lists.
    #[must_use]
    pub fn new(floor: &Floor) -> Self {
        Self { base: Arc::new(floor.clone()), by_namespace: HashMap::new() }
    }

    /// The floor in a namespace, by the addresses that the host has there now. Where there is no such
    /// namespace, nothing can be attached, and the operator's lists are all.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn refresh(
        &mut self,
        dataplane: &dyn DataplaneControl,
        netns: Option<&Path>,
    ) -> Result<Arc<Floor>> {
        let Ok(namespace_id) = namespace_id(netns) else { return Ok(Arc::clone(&self.base)) };
        let addresses = dataplane.host_addresses(netns)?;
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
    #[must_use]
    pub fn get(&self, netns: Option<&Path>) -> Option<Arc<Floor>> {
        let cached = self.by_namespace.get(&namespace_id(netns).ok()?)?;
        Some(Arc::clone(&cached.floor))
    }

    /// An equal floor that is in use somewhere, or this one.
    fn reuse_equal(&self, floor: Floor) -> Arc<Floor> {
        let mut in_use = self.by_namespace.values().map(|known| &known.floor).chain([&self.base]);
        let equal = in_use.find(|cached| cached.host_addresses == floor.host_addresses).cloned();
        equal.unwrap_or_else(|| Arc::new(floor))
    }

    /// Forgets all namespaces but these.
    fn retain_namespaces(&mut self, used: &HashSet<NamespaceId>) {
        self.by_namespace.retain(|namespace_id, _| used.contains(namespace_id));
    }
}

impl Reconciler {
    /// The floor for a sandbox that is taken over. Where the kernel does not tell the host's addresses,
    /// every address may be one, until it does.
    pub(super) fn floor_for_adopted(&mut self, netns: Option<&Path>) -> Arc<Floor> {
        if let Some(cached) = self.floor_cache.get(netns) {
            return cached;
        }
        self.floor_cache.refresh(&*self.dataplane, netns).unwrap_or_else(|error| {
            tracing::error!(?netns, "{error:#}: only platform_allow stays open");
            Arc::new(self.platform_policy.floor.with_unknown_host_addresses())
        })
    }

    /// Asks for the host's addresses in these namespaces. What is known stays where the kernel does
    /// not tell.
    pub fn refresh_host_addresses(&mut self, namespaces: &[Option<PathBuf>]) {
        for netns in namespaces {
            if let Err(error) = self.floor_cache.refresh(&*self.dataplane, netns.as_deref()) {
                tracing::error!(?netns, "{error:#}: those that it had stay closed");
            }
        }
    }

    /// Forgets namespaces in which no sandbox is any more: the kernel may use their numbers again.
    pub fn prune_floor_cache(&mut self) {
        let paths: HashSet<_> =
            self.registry.all().iter().map(|sandbox| sandbox.base_spec.netns.clone()).collect();
        let used = paths.iter().filter_map(|path| namespace_id(path.as_deref()).ok()).collect();
        self.floor_cache.retain_namespaces(&used);
    }

    /// Puts the policies of these sandboxes in force again where the host's addresses have changed.
    pub fn republish_changed_floors(&mut self, ids: &[SandboxId]) {
        let stale: Vec<StagedChange> =
            ids.iter().filter_map(|id| self.change_for_new_floor(id)).collect();
        if stale.is_empty() {
            return;
        }
        for (change, published) in publish::publish_all(&*self.dataplane, &self.attribution, stale)
        {
            let sandbox = change.sandbox;
            let republished = published.and_then(|policy_id| {
                let sandbox = Sandbox { policy_id: Some(policy_id), ..sandbox.clone() };
                self.sync_proxy_policy(&sandbox)?;
                self.registry.insert(sandbox);
                Ok(())
            });
            match republished {
                Ok(()) => tracing::info!(
                    sandbox = %sandbox.id(),
                    "the host's own addresses have changed; they are denied as they are now"
                ),
                // It is tried again at the next look.
                Err(error) => tracing::error!(
                    sandbox = %sandbox.id(),
                    "cannot deny the host's own addresses as they are now: {error:#}"
                ),
            }
        }
    }

    fn change_for_new_floor(&mut self, id: &SandboxId) -> Option<StagedChange> {
        let known = self.registry.get(id)?;
        let floor = self.floor_cache.get(known.base_spec.netns.as_deref())?;
        if Arc::ptr_eq(&floor, &known.active_policy.floor) || floor == known.active_policy.floor {
            return None;
        }
        let (network, policy) =
            (known.active_policy.network.clone(), known.active_policy.policy.clone());
        let (active_policy, compiled) =
            self.policy_interner.compile_shared(network, policy, &floor);
        let sandbox = Arc::new(Sandbox { active_policy, ..Sandbox::clone(&known) });
        Some(StagedChange::for_republish(&sandbox, compiled))
    }
}
