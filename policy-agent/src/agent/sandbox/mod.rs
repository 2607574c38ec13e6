//! The agent's model of a sandbox.

pub(crate) mod active_policy;
pub(crate) mod attribution;
pub(crate) mod container_problem;
pub(crate) mod issued_tokens;
pub(crate) mod lease;
pub(crate) mod lifetime;
pub(crate) mod proxy_counters;
pub(crate) mod registry;
pub(crate) mod report;
pub(crate) mod slot_allocator;
pub(crate) mod store;
pub(crate) mod traffic;

use std::{collections::BTreeSet, fmt, sync::Arc};

use policy_common::counters::ReasonCounters;
use serde::{Serialize, Serializer};

use self::{active_policy::ActivePolicy, lifetime::SandboxLifetime, store::SandboxRecord};
use crate::{
    agent::interface_state::NamespaceId,
    dataplane::{EndpointAddresses, HostInterface, PolicyId, Slot},
    policy::{NetworkConfig, SandboxId, SandboxSpec},
};

/// A sandbox: its specification, policy and state. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The specification without the network configuration, which is in `active_policy`.
    pub base_spec: Arc<SandboxSpec>,
    /// The network configuration and the policy built from it.
    pub active_policy: Arc<ActivePolicy>,
    /// What it keeps from its creation to its end.
    pub lifetime: Arc<SandboxLifetime>,
    /// The name under which its gates are pinned.
    pub pin_name: Arc<str>,
    /// Its index in the kernel's arrays.
    pub slot: Slot,
    /// The ID of the compiled policy in force. `None` if it could not be published.
    pub policy_id: Option<PolicyId>,
    /// Whether its policy is enforced.
    pub status: EnforcementStatus,
    /// The interface that its gates were last attached to.
    pub attach_point: Option<AttachPoint>,
    /// Counters of the slots that it had before.
    pub previous_counters: Arc<ReasonCounters>,
}

/// The exact interface that gates were attached to. Another interface may have its name later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttachPoint {
    /// Its network namespace.
    pub namespace: Option<NamespaceId>,
    /// Its index in that namespace.
    pub ifindex: u32,
}

/// Whether a sandbox's policy is enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnforcementStatus {
    /// The kernel enforces the policy on the interface.
    Enforcing,
    /// The interface does not exist, so nothing can pass. It is attached when it appears.
    InterfaceMissing,
    /// Another policy is in force, or none, for this reason. The agent keeps retrying.
    Failed(String),
}

impl Sandbox {
    /// The sandbox ID.
    #[must_use]
    pub fn id(&self) -> &SandboxId {
        &self.base_spec.sandbox_id
    }

    /// Returns whether gates are pinned for it, under the current name or the one that earlier
    /// agents used.
    #[must_use]
    pub fn is_pinned_in(&self, pinned: &BTreeSet<String>) -> bool {
        pinned.contains(&*self.pin_name) || pinned.contains(self.id().as_str())
    }

    /// Whether its policy is enforced, as users see it: not while something is wrong with its
    /// container, though the gates may be attached to one of its interfaces.
    #[must_use]
    pub fn reported_status(&self) -> EnforcementStatus {
        let container = self.base_spec.container.as_ref();
        let problem = container.and_then(|it| self.lifetime.container_problem().of(it));
        problem.map_or_else(|| self.status.clone(), EnforcementStatus::Failed)
    }

    /// Returns the complete specification.
    #[must_use]
    pub fn spec(&self) -> SandboxSpec {
        SandboxSpec {
            network: self.active_policy.network.clone(),
            ..SandboxSpec::clone(&self.base_spec)
        }
    }

    /// Returns the record for the state file.
    #[must_use]
    pub fn to_record(&self) -> SandboxRecord {
        SandboxRecord { slot: self.slot, spec: self.spec(), lifetime: self.lifetime.to_persisted() }
    }

    /// Returns whether its gates were attached when they were last looked at.
    #[must_use]
    pub(super) fn is_known_attached(&self) -> bool {
        self.attach_point.is_some() && self.status == EnforcementStatus::Enforcing
    }

    /// Says in the log that the policy is not enforced, if it is not.
    pub(super) fn log_observation(&self) {
        if self.active_policy.policy.is_observed() {
            let until = self.base_spec.observe_until.map(|until| until.to_string());
            tracing::warn!(
                sandbox = %self.id(), until,
                "observed: what its policy denies passes, and only the floor is enforced"
            );
        }
    }

    /// Returns whether the specification has the same interface and addresses, so that the sandbox
    /// can keep its slot.
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

/// Splits a specification. Each sandbox has its own base, and equal network configurations are
/// shared.
#[must_use]
pub(super) fn split_network(mut spec: SandboxSpec) -> (Arc<SandboxSpec>, NetworkConfig) {
    let network = std::mem::take(&mut spec.network);
    (Arc::new(spec), network)
}

/// The interface that a sandbox is attached to.
#[must_use]
pub fn interface_for(spec: &SandboxSpec) -> HostInterface {
    HostInterface { name: spec.interface.clone(), netns: spec.netns.clone() }
}

/// The addresses that identify a sandbox on the wire.
#[must_use]
pub fn endpoint_addresses_for(spec: &SandboxSpec) -> EndpointAddresses {
    EndpointAddresses { mac: spec.mac.map(|mac| mac.octets()), addresses: spec.addresses.clone() }
}
