//! A network configuration and the policy built from it. Sandboxes with equal ones share it, so
//! that a thousand sandboxes with the same fifty thousand entries need the memory of one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use crate::policy::{
    CompiledPolicy, DomainName, DomainSet, Explanation, Floor, HeaderRule, NetworkConfig, Policy,
    PolicyDefaults, RequestedName, SandboxSpec, ValidationError, compile_policy, evaluate_by_name,
};

/// The operator's policy for all sandboxes.
#[derive(Clone, Debug)]
pub struct PlatformPolicy {
    /// Rules that no sandbox's policy can override.
    pub floor: Floor,
    /// Defaults for what a sandbox's policy does not specify.
    pub defaults: PolicyDefaults,
}

impl PlatformPolicy {
    /// Builds the policy of a sandbox.
    ///
    /// # Errors
    /// The configuration is invalid. The error names the field and the entry.
    pub fn policy_for_spec(&self, spec: &SandboxSpec) -> Result<Policy, ValidationError> {
        spec.build_policy(&self.defaults, &self.floor)
    }

    /// Builds the policy of a sandbox that was accepted before. Limits hold for requests only, so
    /// that lower ones do not end the policy of a sandbox.
    ///
    /// # Errors
    /// The configuration is invalid. The error names the field and the entry.
    pub fn policy_for_accepted_spec(&self, spec: &SandboxSpec) -> Result<Policy, ValidationError> {
        spec.build_policy(&self.defaults.without_limits(), &self.floor)
    }

    /// Like [`Self::policy_for_network`], for a configuration that was accepted before.
    ///
    /// # Errors
    /// The configuration is invalid. The error names the field and the entry.
    pub fn policy_for_accepted_network(
        &self,
        network: &NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> Result<Policy, ValidationError> {
        let defaults = self.defaults.without_limits();
        Policy::new(network, allow_internet_access, &defaults, &self.floor)
    }

    /// Builds the policy of a network configuration that belongs to no sandbox.
    ///
    /// # Errors
    /// The configuration is invalid. The error names the field and the entry.
    pub fn policy_for_network(
        &self,
        network: &NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> Result<Policy, ValidationError> {
        Policy::new(network, allow_internet_access, &self.defaults, &self.floor)
    }
}

/// A network configuration and the policy built from it.
#[derive(Debug, PartialEq, Eq)]
pub struct ActivePolicy {
    /// The requested configuration.
    pub network: NetworkConfig,
    /// The policy built from it.
    pub policy: Policy,
    /// The floor, which precedes the policy: the operator's lists, and the host's addresses in the
    /// network namespace of the sandbox.
    pub floor: Arc<Floor>,
    /// The domains of the policy.
    pub names: DomainSet,
    /// Digest of the compiled policy.
    pub digest: [u8; 16],
}

impl ActivePolicy {
    /// Returns whether the egress proxy has to decide on or relay some of the sandbox's
    /// connections.
    #[must_use]
    pub const fn needs_proxy(&self) -> bool {
        self.policy.needs_proxy()
    }

    /// Compiles the policy again.
    #[must_use]
    pub fn compile(&self) -> CompiledPolicy {
        compile_policy(&self.policy, &self.floor)
    }

    /// Evaluates line 7 for a connection to `address` that requests `name`.
    #[must_use]
    pub fn evaluate_by_name(&self, name: Option<&RequestedName>, address: IpAddr) -> Explanation {
        evaluate_by_name(&self.policy, &self.names, &self.floor, name, address)
    }

    /// The rule whose headers requests to a name get. A rule grants nothing, so the name must be in
    /// `allowOut`, also while the sandbox is observed.
    #[must_use]
    pub fn header_rule_for(&self, name: &DomainName) -> Option<&HeaderRule> {
        let rule = self.policy.header_rules().rule_for(name)?;
        self.names.most_specific_match(name).is_some().then_some(rule)
    }
}

/// The active policies in use, for sharing equal ones.
#[derive(Debug, Default)]
pub(crate) struct PolicyInterner {
    by_digest: HashMap<[u8; 16], Vec<Weak<ActivePolicy>>>,
}

impl PolicyInterner {
    /// Builds an active policy, shared with sandboxes that have an equal one, and its compiled
    /// form.
    pub(crate) fn compile_shared(
        &mut self,
        network: NetworkConfig,
        policy: Policy,
        floor: &Arc<Floor>,
    ) -> (Arc<ActivePolicy>, CompiledPolicy) {
        let compiled = compile_policy(&policy, floor);
        let (names, digest) = (DomainSet::from_policy(&policy), compiled.digest());
        let active_policy =
            ActivePolicy { network, policy, floor: Arc::clone(floor), names, digest };
        (self.intern(active_policy), compiled)
    }

    fn intern(&mut self, active_policy: ActivePolicy) -> Arc<ActivePolicy> {
        let known = self.by_digest.entry(active_policy.digest).or_default();
        known.retain(|weak| weak.strong_count() > 0);
        if let Some(equal) =
            known.iter().filter_map(Weak::upgrade).find(|existing| **existing == active_policy)
        {
            return equal;
        }
        let active_policy = Arc::new(active_policy);
        known.push(Arc::downgrade(&active_policy));
        active_policy
    }

    /// Drops policies that no sandbox uses.
    pub(crate) fn prune(&mut self) {
        self.by_digest.retain(|_, known| known.iter().any(|weak| weak.strong_count() > 0));
    }
}
