//! A network configuration with its meaning. Sandboxes with equal ones share it: a thousand with
//! the same fifty thousand entries need the memory of one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use crate::policy::{
    CompiledPolicy, DomainSet, Explanation, Floor, NetworkConfig, Policy, PolicyDefaults,
    SandboxSpec, ValidationError, compile_policy, evaluate_by_name,
};

/// What the operator decides for all sandboxes.
#[derive(Clone, Debug)]
pub struct PlatformPolicy {
    /// What holds whatever a sandbox's policy says.
    pub floor: Floor,
    /// What holds where a sandbox's policy says nothing.
    pub defaults: PolicyDefaults,
}

impl PlatformPolicy {
    /// The meaning of a sandbox's network configuration.
    ///
    /// # Errors
    /// Names the field and the entry that are wrong.
    pub fn policy_for_spec(&self, spec: &SandboxSpec) -> Result<Policy, ValidationError> {
        spec.build_policy(&self.defaults, &self.floor)
    }

    /// Checks a network configuration that no sandbox has.
    ///
    /// # Errors
    /// Names the field and the entry that are wrong.
    pub fn policy_for_network(
        &self,
        network: &NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> Result<Policy, ValidationError> {
        Policy::new(network, allow_internet_access, &self.defaults, &self.floor)
    }
}

/// A network configuration, as it was asked for and as it is meant.
#[derive(Debug, PartialEq, Eq)]
pub struct ActivePolicy {
    /// As it was asked for.
    pub network: NetworkConfig,
    /// As it is meant.
    pub policy: Policy,
    /// What holds before it: the operator's lists, and the addresses of the host where the sandbox is.
    pub floor: Arc<Floor>,
    /// Its domains.
    pub names: DomainSet,
    /// Digest of the compiled form.
    pub digest: [u8; 16],
}

impl ActivePolicy {
    /// Whether some of the sandbox's connections are for the egress proxy to judge or to carry.
    #[must_use]
    pub const fn needs_proxy(&self) -> bool {
        self.policy.has_domains() || self.policy.egress_proxy().is_some()
    }

    /// The compiled form, again.
    #[must_use]
    pub fn compile(&self) -> CompiledPolicy {
        compile_policy(&self.policy, &self.floor)
    }

    /// Line 7, for a connection to `address` that asks for `host`.
    #[must_use]
    pub fn evaluate_by_name(&self, host: Option<&str>, address: IpAddr) -> Explanation {
        evaluate_by_name(&self.policy, &self.names, &self.floor, host, address)
    }
}

/// The rules in use.
#[derive(Debug, Default)]
pub struct PolicyInterner {
    by_digest: HashMap<[u8; 16], Vec<Weak<ActivePolicy>>>,
}

impl PolicyInterner {
    /// The rules of a network configuration, shared with whoever has equal ones, and their
    /// compiled form.
    pub fn compile_shared(
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

    /// Forgets what nobody uses.
    pub fn prune(&mut self) {
        self.by_digest.retain(|_, known| known.iter().any(|weak| weak.strong_count() > 0));
    }
}
