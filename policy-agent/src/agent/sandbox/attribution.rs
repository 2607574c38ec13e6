//! Event attribution: the sandbox and policy that the numbers in an event refer to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::active_policy::ActivePolicy;
use crate::{
    dataplane::{PolicyId, Slot},
    policy::SandboxId,
};

/// Maximum number of remembered policies per slot, including the one in force.
const MAX_POLICIES_PER_SLOT: usize = 8;
/// How long replaced policies and released slots are remembered. Events arrive within 0.1 s.
const RETENTION: Duration = Duration::from_secs(30);

/// Maps slots and policy IDs to sandboxes and policies.
#[derive(Debug, Default)]
pub struct EventAttribution {
    slots: Mutex<SlotOwners>,
}

type SlotOwners = HashMap<u32, SlotOwner>;

#[derive(Debug)]
struct SlotOwner {
    sandbox: SandboxId,
    /// From oldest to newest. The last one is in force.
    policies: VecDeque<(PolicyId, Arc<ActivePolicy>, Instant)>,
    released_at: Option<Instant>,
}

impl EventAttribution {
    /// Assigns a slot to a sandbox, without a policy.
    pub fn assign_slot(&self, slot: Slot, sandbox: &SandboxId) {
        let sandbox = sandbox.clone();
        let owner = SlotOwner { sandbox, policies: VecDeque::new(), released_at: None };
        self.lock().insert(slot.get(), owner);
    }

    /// Publishes policies and records their IDs under the lock, so that no event is resolved before
    /// its policy is recorded.
    pub fn update_while_publishing<T>(
        &self,
        publish: impl FnOnce(&mut AttributionUpdate<'_>) -> T,
    ) -> T {
        publish(&mut AttributionUpdate { slots: self.lock() })
    }

    /// Records that a slot was released.
    pub fn release_slot(&self, slot: Slot) {
        if let Some(owner) = self.lock().get_mut(&slot.get()) {
            owner.released_at = Some(Instant::now());
        }
    }

    /// Returns the sandbox of a slot, and its policy with this ID.
    #[must_use]
    pub fn resolve_event(
        &self,
        slot: u32,
        policy_id: u16,
    ) -> Option<(SandboxId, Option<Arc<ActivePolicy>>)> {
        let slots = self.lock();
        let owner = slots.get(&slot)?;
        let mut newest_first = owner.policies.iter().rev();
        let active_policy =
            newest_first.find(|(id, ..)| id.0 == policy_id).map(|(_, rules, _)| Arc::clone(rules));
        Some((owner.sandbox.clone(), active_policy))
    }

    /// Drops slots and policies that no event can refer to any more.
    pub fn prune(&self) {
        let mut slots = self.lock();
        slots.retain(|_, owner| {
            owner.released_at.is_none_or(|released_at| released_at.elapsed() < RETENTION)
        });
        for owner in slots.values_mut() {
            while let [(..), (_, _, replaced_at), ..] = owner.policies.make_contiguous()
                && replaced_at.elapsed() >= RETENTION
            {
                owner.policies.pop_front();
            }
        }
    }

    /// A poisoned lock is usable: each change of the map is a single call, which cannot be left
    /// incomplete.
    fn lock(&self) -> MutexGuard<'_, SlotOwners> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attribution, locked while policies are published.
pub struct AttributionUpdate<'a> {
    slots: MutexGuard<'a, SlotOwners>,
}

impl AttributionUpdate<'_> {
    /// Records the policy that is now in force in this slot.
    pub fn record_policy(
        &mut self,
        slot: Slot,
        policy_id: PolicyId,
        active_policy: &Arc<ActivePolicy>,
    ) {
        let Some(owner) = self.slots.get_mut(&slot.get()) else { return };
        owner.policies.push_back((policy_id, Arc::clone(active_policy), Instant::now()));
        if owner.policies.len() > MAX_POLICIES_PER_SLOT {
            owner.policies.pop_front();
        }
    }
}
