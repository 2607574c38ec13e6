//! A sandbox as the agent knows it.

use std::{collections::BTreeSet, fmt, sync::Arc};

use policy_common::counter::Counters;
use serde::{Serialize, Serializer};

use super::{presence::Namespace, rules::Rules};
use crate::{
    dataplane::{Identity, Interface, PolicyId, Slot},
    life::Life,
    policy::{NetworkConfig, SandboxId, SandboxSpec},
    store::Entry,
};

/// A sandbox, what was asked for it and what holds for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// What was asked for, without the network configuration, which is in `rules`.
    pub head: Arc<SandboxSpec>,
    /// Its network configuration and policy.
    pub rules: Arc<Rules>,
    /// What it has from its creation to its end.
    pub life: Arc<Life>,
    /// Under which name its gates are pinned.
    pub gates: Arc<str>,
    /// Its number in the kernel's tables.
    pub slot: Slot,
    /// The compiled policy in force; `None` when it could not be published.
    pub policy: Option<PolicyId>,
    /// Whether it is enforced.
    pub status: Status,
    /// Where its gates were attached last.
    pub place: Option<Place>,
    /// What was counted in slots that it had before.
    pub carried: Arc<Counters>,
}

/// The very interface that gates were attached to; another may have its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its namespace.
    pub namespace: Option<Namespace>,
    /// Its index there.
    pub index: u32,
}

/// Whether a sandbox's policy is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// The kernel enforces the policy on the interface.
    Enforcing,
    /// There is no such interface, so nothing can pass. It is attached when it appears.
    InterfaceMissing,
    /// The policy in force is another one, or none; the agent goes on trying.
    Failed(String),
}

impl Sandbox {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        &self.head.sandbox_id
    }

    /// Whether gates are pinned for it, under today's name or the one of earlier agents.
    #[must_use]
    pub fn has_gates_in(&self, pinned: &BTreeSet<String>) -> bool {
        pinned.contains(&*self.gates) || pinned.contains(self.id().as_str())
    }

    /// All that was asked for.
    #[must_use]
    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec { network: self.rules.network.clone(), ..SandboxSpec::clone(&self.head) }
    }

    /// As it is kept on disk.
    #[must_use]
    pub fn entry(&self) -> Entry {
        Entry { slot: self.slot, spec: self.spec(), life: self.life.kept() }
    }

    /// Whether the same interface and addresses are asked for, so that it can keep its slot.
    #[must_use]
    pub fn is_where(&self, spec: &SandboxSpec) -> bool {
        interface(&self.head) == interface(spec) && identity(&self.head) == identity(spec)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforcing => f.write_str("enforcing"),
            Self::InterfaceMissing => f.write_str("interface missing"),
            Self::Failed(problem) => write!(f, "failed: {problem}"),
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits a specification: the head is kept per sandbox, the network configuration is shared.
#[must_use]
pub fn split(mut spec: SandboxSpec) -> (Arc<SandboxSpec>, NetworkConfig) {
    let network = std::mem::take(&mut spec.network);
    (Arc::new(spec), network)
}

/// Where a sandbox is attached.
#[must_use]
pub fn interface(spec: &SandboxSpec) -> Interface {
    Interface { name: spec.interface.clone(), netns: spec.netns.clone() }
}

/// Who a sandbox is on the wire.
#[must_use]
pub fn identity(spec: &SandboxSpec) -> Identity {
    Identity { mac: spec.mac.map(|mac| mac.octets()), addresses: spec.addresses.clone() }
}
