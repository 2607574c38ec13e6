//! Desired against actual: every change of a sandbox goes through here, one at a time.

mod adopt;
pub(crate) mod create;
pub(crate) mod publish;
mod rollback;
pub(crate) mod stage;
pub(crate) mod validate;

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use self::{
    stage::{StagedChange, ValidatedSandbox},
    validate::SandboxOwnershipIndex,
};
use crate::{
    agent::{
        dataplane_control::DataplaneControl,
        error::AgentError,
        floor_cache::FloorCache,
        interface_pool::{InterfacePool, PooledInterface},
        proxy_control::ProxyControl,
        sandbox::{
            active_policy::{PlatformPolicy, PolicyInterner},
            attribution::EventAttribution,
            registry::SandboxRegistry,
            slot_allocator::SlotAllocator,
            split_network,
            store::SandboxStore,
        },
    },
    policy::{Floor, NetworkConfig, Policy, SandboxId, SandboxSpec, ValidationError},
};

/// What became of each sandbox of an `apply`.
pub type ApplyResults = Vec<(SandboxId, Result<(), AgentError>)>;

/// The owner of everything that changes. Its methods block.
pub struct Reconciler {
    pub(crate) dataplane: Arc<dyn DataplaneControl>,
    pub(crate) proxy: Arc<dyn ProxyControl>,
    pub(crate) store: SandboxStore,
    pub(crate) platform_policy: Arc<PlatformPolicy>,
    pub(crate) registry: Arc<SandboxRegistry>,
    pub(crate) attribution: Arc<EventAttribution>,
    pub(crate) slot_allocator: SlotAllocator,
    pub(crate) policy_interner: PolicyInterner,
    pub(crate) floor_cache: FloorCache,
    pub(crate) interface_pool: InterfacePool,
    /// Attached by an agent before this one, and not in the store: they stay as they are.
    pub(crate) orphaned_pins: BTreeSet<String>,
}

impl Reconciler {
    /// A reconciler that knows no sandbox yet.
    #[must_use]
    pub fn new(
        dataplane: Arc<dyn DataplaneControl>,
        proxy: Arc<dyn ProxyControl>,
        store: SandboxStore,
        platform_policy: Arc<PlatformPolicy>,
        registry: Arc<SandboxRegistry>,
        attribution: Arc<EventAttribution>,
        pooled_interfaces: Arc<[PooledInterface]>,
    ) -> Self {
        let floor_cache = FloorCache::new(&platform_policy.floor);
        Self {
            dataplane,
            proxy,
            store,
            platform_policy,
            registry,
            attribution,
            slot_allocator: SlotAllocator::default(),
            policy_interner: PolicyInterner::default(),
            floor_cache,
            interface_pool: InterfacePool::new(pooled_interfaces),
            orphaned_pins: BTreeSet::new(),
        }
    }

    /// A sandbox with its egress fields replaced, as `PUT …/network` asks.
    pub(crate) fn validate_update(
        &mut self,
        id: &str,
        update: &NetworkConfig,
    ) -> Result<ValidatedSandbox, AgentError> {
        let known = self.registry.find(id);
        let before = known.as_ref().map(|sandbox| &sandbox.active_policy.network);
        let network = before.unwrap_or(&NetworkConfig::default()).replace_egress(update)?;
        let Some(sandbox) = known else {
            self.platform_policy.policy_for_network(&network, None)?;
            return Err(AgentError::UnknownSandbox(id.to_owned()));
        };
        let base_spec = SandboxSpec::clone(&sandbox.base_spec);
        // An update that says nothing about internet access lifts what was said before.
        let spec = SandboxSpec { network, allow_internet_access: None, ..base_spec };
        let policy = self.platform_policy.policy_for_spec(&spec)?;
        self.validate_redirect(&spec, &policy)?;
        Ok(self.build_validated(spec, policy, &sandbox.active_policy.floor))
    }

    /// Detaches a sandbox and forgets it.
    ///
    /// # Errors
    /// There is no such sandbox, or the kernel or the disk refuses; it is still known then.
    pub fn delete(&mut self, id: &str) -> Result<(), AgentError> {
        let Some(sandbox) = self.registry.find(id) else { return self.delete_orphan(id) };
        let reject = |failure, cause| AgentError::Failed {
            sandbox: sandbox.id().clone(),
            failure,
            consequence: "it is kept; delete it again",
            cause,
        };
        // First the disk: where that refuses, nothing was opened. What is attached and not on disk
        // stays shut, should the agent die in between.
        let removed = self.store.remove(sandbox.id());
        removed.map_err(|cause| reject("cannot forget it", cause))?;
        if let Err(cause) = self.detach_sandbox(&sandbox) {
            if let Err(error) = self.store.save(&sandbox.to_record()) {
                tracing::error!(sandbox = id, "cannot write it back to disk: {error:#}");
            }
            return Err(reject("cannot detach it", cause));
        }
        self.registry.remove(sandbox.id());
        sandbox.lifetime.end();
        self.release_slot(sandbox.slot);
        self.policy_interner.prune();
        tracing::info!(sandbox = id, "deleted");
        Ok(())
    }

    fn delete_orphan(&mut self, id: &str) -> Result<(), AgentError> {
        if !self.orphaned_pins.contains(id) {
            return Err(AgentError::UnknownSandbox(id.to_owned()));
        }
        self.dataplane.detach(id).map_err(AgentError::Internal)?;
        self.orphaned_pins.remove(id);
        tracing::info!(sandbox = id, "detached what an earlier agent left");
        Ok(())
    }

    /// `force`: whether an interface may be one that the host needs for itself.
    pub(crate) fn validate_specs(
        &mut self,
        specs: Vec<SandboxSpec>,
        force: bool,
    ) -> Result<Vec<ValidatedSandbox>, AgentError> {
        // Most changes move nobody, and a thousand sandboxes have a lot of addresses.
        let all_keep_endpoint = specs.iter().all(|spec| self.keeps_endpoint(spec));
        let mut ownership = if all_keep_endpoint {
            SandboxOwnershipIndex::default()
        } else {
            self.ownership_index(&specs)
        };
        let mut seen_ids = BTreeSet::new();
        let mut accepted = Vec::with_capacity(specs.len());
        let mut queried_floors = HashMap::new();
        for spec in specs {
            let id = spec.sandbox_id.clone();
            let reject = |invalid| AgentError::for_sandbox(&id, invalid);
            spec.validate().map_err(reject)?;
            if !seen_ids.insert(id.clone()) {
                return Err(reject(ValidationError::about_entry(
                    "sandboxID",
                    id.as_str(),
                    "is given twice",
                )));
            }
            self.validate_endpoint(&spec, &mut ownership, force).map_err(reject)?;
            let policy = self.platform_policy.policy_for_spec(&spec).map_err(reject)?;
            self.validate_redirect(&spec, &policy).map_err(reject)?;
            let floor = self.floor_for(&spec, &mut queried_floors)?;
            accepted.push((spec, policy, floor));
        }
        let accepted = accepted.into_iter();
        Ok(accepted
            .map(|(spec, policy, floor)| self.build_validated(spec, policy, &floor))
            .collect())
    }

    /// The floor where a sandbox is to be. Where one is in place already it is followed at every look;
    /// for others the kernel is asked, once for each namespace.
    fn floor_for(
        &mut self,
        spec: &SandboxSpec,
        queried_floors: &mut HashMap<Option<PathBuf>, Arc<Floor>>,
    ) -> Result<Arc<Floor>, AgentError> {
        let known =
            self.registry.get(&spec.sandbox_id).filter(|known| known.has_same_endpoint(spec));
        if let Some(known) = known {
            return Ok(Arc::clone(&known.active_policy.floor));
        }
        if let Some(floor) = queried_floors.get(&spec.netns) {
            return Ok(Arc::clone(floor));
        }
        let refreshed = self.floor_cache.refresh(&*self.dataplane, spec.netns.as_deref());
        let floor = refreshed.map_err(|cause| AgentError::Failed {
            sandbox: spec.sandbox_id.clone(),
            failure: "cannot tell which addresses are the host's own",
            consequence: "nothing was changed",
            cause,
        })?;
        queried_floors.insert(spec.netns.clone(), Arc::clone(&floor));
        Ok(floor)
    }

    fn build_validated(
        &mut self,
        spec: SandboxSpec,
        policy: Policy,
        floor: &Arc<Floor>,
    ) -> ValidatedSandbox {
        let (base_spec, network) = split_network(spec);
        let (active_policy, compiled) = self.policy_interner.compile_shared(network, policy, floor);
        ValidatedSandbox { base_spec, active_policy, compiled }
    }

    /// The same as [`Self::commit`] for a single change.
    pub(crate) fn commit_one(&mut self, change: StagedChange) -> Result<(), AgentError> {
        let mut results = ApplyResults::new();
        self.commit(vec![change], &mut results);
        single_result(results)
    }

    /// Publishes what is staged and finishes it, or undoes it.
    pub(crate) fn commit(&mut self, staged: Vec<StagedChange>, results: &mut ApplyResults) {
        let published = publish::publish_all(&*self.dataplane, &self.attribution, staged);
        for (change, published) in published {
            let id = change.id().clone();
            let result = match published {
                Ok(policy) => self.activate(change, policy),
                Err(cause) => Err(self.roll_back(change, "cannot publish its policy", cause)),
            };
            results.push((id, result));
        }
    }
}

/// The outcome where there is one sandbox.
///
/// # Errors
/// Its own.
pub fn single_result(mut results: ApplyResults) -> Result<(), AgentError> {
    results.pop().map_or(Ok(()), |(_, result)| result)
}
