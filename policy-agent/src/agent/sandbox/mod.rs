//! A sandbox as the agent knows it.

pub(crate) mod active_policy;
pub(crate) mod attribution;
pub(crate) mod lifetime;
pub(crate) mod proxy_counters;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod slot_allocator;
pub(crate) mod store;

use std::{collections::BTreeSet, fmt, sync::Arc};

use policy_common::counters::ReasonCounters;
use serde::{Serialize, Serializer};

use self::{active_policy::ActivePolicy, lifetime::SandboxLifetime, store::SandboxRecord};
use crate::{
    agent::interface_state::NamespaceId,
    dataplane::{EndpointAddresses, HostInterface, PolicyId, Slot},
    policy::{NetworkConfig, SandboxId, SandboxSpec},
};

/// A sandbox, what was asked for it and what holds for it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// What was asked for, without the network configuration, which is in `rules`.
    pub base_spec: Arc<SandboxSpec>,
    /// Its network configuration and policy.
    pub active_policy: Arc<ActivePolicy>,
    /// What it has from its creation to its end.
    pub lifetime: Arc<SandboxLifetime>,
    /// Under which name its gates are pinned.
    pub pin_name: Arc<str>,
    /// Its number in the kernel's tables.
    pub slot: Slot,
    /// The compiled policy in force; `None` when it could not be published.
    pub policy_id: Option<PolicyId>,
    /// Whether it is enforced.
    pub status: EnforcementStatus,
    /// Where its gates were attached last.
    pub attach_point: Option<AttachPoint>,
    /// What was counted in slots that it had before.
    pub previous_counters: Arc<ReasonCounters>,
}

/// The very interface that gates were attached to; another may have its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// Its namespace.
    pub namespace: Option<NamespaceId>,
    /// Its index there.
    pub ifindex: u32,
}

/// Whether a sandbox's policy is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnforcementStatus {
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
        &self.base_spec.sandbox_id
    }

    /// Whether gates are pinned for it, under today's name or the one of earlier agents.
    #[must_use]
    pub fn is_pinned_in(&self, pinned: &BTreeSet<String>) -> bool {
        pinned.contains(&*self.pin_name) || pinned.contains(self.id().as_str())
    }

    /// All that was asked for.
    #[must_use]
    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            network: self.active_policy.network.clone(),
            ..SandboxSpec::clone(&self.base_spec)
        }
    }

    /// As it is kept on disk.
    #[must_use]
    pub fn to_record(&self) -> SandboxRecord {
        SandboxRecord { slot: self.slot, spec: self.spec(), lifetime: self.lifetime.to_persisted() }
    }

    /// Whether the same interface and addresses are asked for, so that it can keep its slot.
    #[must_use]
    pub fn has_same_endpoint(&self, spec: &SandboxSpec) -> bool {
        interface_for(&self.base_spec) == interface_for(spec)
            && endpoint_addresses_for(&self.base_spec) == endpoint_addresses_for(spec)
    }
}

impl fmt::Display for EnforcementStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enforcing => f.write_str("enforcing"),
            Self::InterfaceMissing => f.write_str("interface missing"),
            Self::Failed(problem) => write!(f, "failed: {problem}"),
        }
    }
}

impl Serialize for EnforcementStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Splits a specification: the head is kept per sandbox, the network configuration is shared.
#[must_use]
pub fn split_network(mut spec: SandboxSpec) -> (Arc<SandboxSpec>, NetworkConfig) {
    let network = std::mem::take(&mut spec.network);
    (Arc::new(spec), network)
}

/// Where a sandbox is attached.
#[must_use]
pub fn interface_for(spec: &SandboxSpec) -> HostInterface {
    HostInterface { name: spec.interface.clone(), netns: spec.netns.clone() }
}

/// Who a sandbox is on the wire.
#[must_use]
pub fn endpoint_addresses_for(spec: &SandboxSpec) -> EndpointAddresses {
    EndpointAddresses { mac: spec.mac.map(|mac| mac.octets()), addresses: spec.addresses.clone() }
}
