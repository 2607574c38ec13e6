//! Validates requests before anything is changed.

use std::{
    collections::{BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use super::Reconciler;
use crate::{
    agent::{
        endpoint_validator::{HostAddresses, SandboxOwnershipIndex},
        error::AgentError,
        sandbox::{active_policy::ActivePolicy, split_network},
    },
    policy::{CompiledPolicy, Floor, NetworkConfig, Policy, SandboxSpec, ValidationError},
};

/// A valid sandbox without a slot.
pub(crate) struct ValidatedSandbox {
    pub(crate) base_spec: Arc<SandboxSpec>,
    pub(crate) active_policy: Arc<ActivePolicy>,
    pub(crate) compiled: CompiledPolicy,
}

impl Reconciler {
    /// Validates a change of the egress fields of a sandbox, as requested by `PUT …/network`.
    pub(crate) fn validate_update(
        &mut self,
        id: &str,
        update: &NetworkConfig,
    ) -> Result<ValidatedSandbox, AgentError> {
        let known = self.registry.find(id);
        let before = known.as_ref().map(|sandbox| &sandbox.active_policy.network);
        let network = before.unwrap_or(&NetworkConfig::default()).replace_egress(update)?;
        let Some(sandbox) = known else {
            self.platform_policy.get().policy_for_network(&network, None)?;
            return Err(AgentError::UnknownSandbox(id.to_owned()));
        };
        let base_spec = SandboxSpec::clone(&sandbox.base_spec);
        // An update that omits `allowInternetAccess` clears the earlier one.
        let temporary = Vec::new();
        let spec = SandboxSpec { network, allow_internet_access: None, temporary, ..base_spec };
        let policy = self.validate_policy(&spec)?;
        Ok(self.build_validated(spec, policy, &sandbox.active_policy.floor))
    }

    /// Validates sandboxes. `force` allows interfaces that the host itself needs.
    pub(crate) fn validate_specs(
        &mut self,
        specs: Vec<SandboxSpec>,
        force: bool,
    ) -> Result<Vec<ValidatedSandbox>, AgentError> {
        // Most changes move no sandbox, and indexing the addresses of a thousand sandboxes takes
        // time.
        let all_keep_endpoint = specs.iter().all(|spec| self.endpoints.keeps_endpoint(spec));
        let mut ownership = if all_keep_endpoint {
            SandboxOwnershipIndex::default()
        } else {
            self.endpoints.ownership_index(&specs)
        };
        let mut seen_ids = BTreeSet::new();
        let mut accepted = Vec::with_capacity(specs.len());
        let mut queried_floors = HashMap::new();
        let mut host_addresses = HostAddresses::new();
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
            self.endpoints
                .validate(&spec, &mut ownership, &mut host_addresses, force)
                .map_err(reject)?;
            let policy = self.validate_policy(&spec).map_err(reject)?;
            let floor = self.floor_for(&spec, &mut queried_floors)?;
            accepted.push((spec, policy, floor));
        }
        let accepted = accepted.into_iter();
        Ok(accepted
            .map(|(spec, policy, floor)| self.build_validated(spec, policy, &floor))
            .collect())
    }

    /// Returns the floor for a sandbox. A sandbox that keeps its endpoint also keeps its floor,
    /// which every scan updates. For others, the kernel is queried once per namespace.
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
        let refreshed = self.floors.refresh(spec.netns.as_deref());
        let floor = refreshed.map_err(|cause| AgentError::Failed {
            sandbox: spec.sandbox_id.clone(),
            failure: "cannot tell which addresses are the host's own",
            consequence: "nothing was changed",
            cause,
        })?;
        queried_floors.insert(spec.netns.clone(), Arc::clone(&floor));
        Ok(floor)
    }

    /// Builds the policy of a sandbox, and checks that its interface can have it.
    pub(super) fn validate_policy(&self, spec: &SandboxSpec) -> Result<Policy, ValidationError> {
        let policy = self.platform_policy.get().policy_for_spec(spec)?;
        self.redirects.validate(spec, &policy)?;
        Ok(policy)
    }

    pub(super) fn build_validated(
        &mut self,
        spec: SandboxSpec,
        policy: Policy,
        floor: &Arc<Floor>,
    ) -> ValidatedSandbox {
        let (base_spec, network) = split_network(spec);
        let (active_policy, compiled) = self.policy_interner.compile_shared(network, policy, floor);
        ValidatedSandbox { base_spec, active_policy, compiled }
    }
}
