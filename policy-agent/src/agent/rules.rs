//! A network configuration with its meaning. Sandboxes with equal ones share it: a thousand with
//! the same fifty thousand entries need the memory of one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Weak},
};

use crate::policy::{
    Compiled, Defaults, Explanation, Floor, Invalid, Names, NetworkConfig, Policy, SandboxSpec,
    by_name, compile,
};

/// What the operator decides for all sandboxes.
#[derive(Clone, Debug)]
pub struct Law {
    /// What holds whatever a sandbox's policy says.
    pub floor: Floor,
    /// What holds where a sandbox's policy says nothing.
    pub defaults: Defaults,
}

impl Law {
    /// The meaning of a sandbox's network configuration.
    ///
    /// # Errors
    /// Names the field and the entry that are wrong.
    pub fn judge(&self, spec: &SandboxSpec) -> Result<Policy, Invalid> {
        spec.policy(&self.defaults, &self.floor)
    }

    /// Checks a network configuration that no sandbox has.
    ///
    /// # Errors
    /// Names the field and the entry that are wrong.
    pub fn judge_network(
        &self,
        network: &NetworkConfig,
        allow_internet_access: Option<bool>,
    ) -> Result<Policy, Invalid> {
        Policy::new(network, allow_internet_access, &self.defaults, &self.floor)
    }
}

/// A network configuration, as it was asked for and as it is meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Rules {
    /// As it was asked for.
    pub network: NetworkConfig,
    /// As it is meant.
    pub policy: Policy,
    /// What holds before it: the operator's lists, and the addresses of the host where the sandbox is.
    pub floor: Arc<Floor>,
    /// Its domains.
    pub names: Names,
    /// Digest of the compiled form.
    pub digest: [u8; 16],
}

impl Rules {
    /// Whether some of the sandbox's connections are for the egress proxy to judge or to carry.
    #[must_use]
    pub const fn need_proxy(&self) -> bool {
        self.policy.has_names() || self.policy.tunnel().is_some()
    }

    /// The compiled form, again.
    #[must_use]
    pub fn compile(&self) -> Compiled {
        compile(&self.policy, &self.floor)
    }

    /// Line 7, for a connection to `address` that asks for `host`.
    #[must_use]
    pub fn by_name(&self, host: Option<&str>, address: IpAddr) -> Explanation {
        by_name(&self.policy, &self.names, &self.floor, host, address)
    }
}

/// The rules in use.
#[derive(Debug, Default)]
pub struct Pool {
    by_digest: HashMap<[u8; 16], Vec<Weak<Rules>>>,
}

impl Pool {
    /// The rules of a network configuration, shared with whoever has equal ones, and their
    /// compiled form.
    pub fn share(
        &mut self,
        network: NetworkConfig,
        policy: Policy,
        floor: &Arc<Floor>,
    ) -> (Arc<Rules>, Compiled) {
        let compiled = compile(&policy, floor);
        let (names, digest) = (Names::of(&policy), compiled.digest());
        let rules = Rules { network, policy, floor: Arc::clone(floor), names, digest };
        (self.intern(rules), compiled)
    }

    fn intern(&mut self, rules: Rules) -> Arc<Rules> {
        let known = self.by_digest.entry(rules.digest).or_default();
        known.retain(|weak| weak.strong_count() > 0);
        if let Some(equal) = known.iter().filter_map(Weak::upgrade).find(|old| **old == rules) {
            return equal;
        }
        let rules = Arc::new(rules);
        known.push(Arc::downgrade(&rules));
        rules
    }

    /// Forgets what nobody uses.
    pub fn prune(&mut self) {
        self.by_digest.retain(|_, known| known.iter().any(|weak| weak.strong_count() > 0));
    }
}
