//! Whose slot it was, and which policy it had: what an event's numbers mean.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::rules::Rules;
use crate::{
    dataplane::{PolicyId, Slot},
    policy::SandboxId,
};

/// Policies that are remembered per slot, the one in force included.
const REMEMBERED: usize = 8;
/// How long replaced policies and given-back slots are remembered: events come within 0.1 s.
const MEMORY: Duration = Duration::from_secs(30);

/// The meaning of slots and policy numbers.
#[derive(Debug, Default)]
pub struct Ledger {
    slots: Mutex<Slots>,
}

type Slots = HashMap<u32, Owner>;

#[derive(Debug)]
struct Owner {
    sandbox: SandboxId,
    /// The one in force last.
    policies: VecDeque<(PolicyId, Arc<Rules>, Instant)>,
    released: Option<Instant>,
}

impl Ledger {
    /// A sandbox gets a slot, which has no policy yet.
    pub fn assign(&self, slot: Slot, sandbox: &SandboxId) {
        let sandbox = sandbox.clone();
        let owner = Owner { sandbox, policies: VecDeque::new(), released: None };
        self.lock().insert(slot.get(), owner);
    }

    /// Publishes policies and notes what they mean. Events wait meanwhile, so none is read before
    /// its policy is known.
    pub fn publish<T>(&self, publish: impl FnOnce(&mut Notes<'_>) -> T) -> T {
        publish(&mut Notes { slots: self.lock() })
    }

    /// A slot was given back.
    pub fn release(&self, slot: Slot) {
        if let Some(owner) = self.lock().get_mut(&slot.get()) {
            owner.released = Some(Instant::now());
        }
    }

    /// The sandbox of a slot, and its rules with this policy number.
    #[must_use]
    pub fn look_up(&self, slot: u32, policy: u16) -> Option<(SandboxId, Option<Arc<Rules>>)> {
        let slots = self.lock();
        let owner = slots.get(&slot)?;
        let mut newest_first = owner.policies.iter().rev();
        let rules = newest_first.find(|(id, ..)| id.0 == policy).map(|(_, rules, _)| rules.clone());
        Some((owner.sandbox.clone(), rules))
    }

    /// Forgets what no event can name any more.
    pub fn prune(&self) {
        let mut slots = self.lock();
        slots.retain(|_, owner| owner.released.is_none_or(|when| when.elapsed() < MEMORY));
        for owner in slots.values_mut() {
            while let [(..), (_, _, replaced), ..] = owner.policies.make_contiguous()
                && replaced.elapsed() >= MEMORY
            {
                owner.policies.pop_front();
            }
        }
    }

    /// Every change of the map is one call that cannot be half done.
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ledger while policies are published.
pub struct Notes<'a> {
    slots: MutexGuard<'a, Slots>,
}

impl Notes<'_> {
    /// This policy is in force in this slot from now on.
    pub fn note(&mut self, slot: Slot, policy: PolicyId, rules: &Arc<Rules>) {
        let Some(owner) = self.slots.get_mut(&slot.get()) else { return };
        owner.policies.push_back((policy, rules.clone(), Instant::now()));
        if owner.policies.len() > REMEMBERED {
            owner.policies.pop_front();
        }
    }
}
