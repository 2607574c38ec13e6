//! The slots of sandboxes in the kernel's arrays.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use anyhow::Result;
use policy_common::{counters::ReasonCounters, endpoint::MAX_SANDBOXES};

use super::{
    Sandbox, attribution::EventAttribution, endpoint_addresses_for, report::total_counters,
};
use crate::{
    agent::{dataplane_control::DataplaneControl, error::AgentError},
    dataplane::Slot,
    policy::{SandboxId, SandboxSpec},
};

/// Allocates and prepares slots for sandboxes, and empties them again.
pub(crate) struct SlotAllocator {
    dataplane: Arc<dyn DataplaneControl>,
    attribution: Arc<EventAttribution>,
    allocated: AllocatedSlots,
}

impl SlotAllocator {
    /// Starts with all slots free.
    pub(crate) fn new(
        dataplane: Arc<dyn DataplaneControl>,
        attribution: Arc<EventAttribution>,
    ) -> Self {
        Self { dataplane, attribution, allocated: AllocatedSlots::default() }
    }

    /// Allocates a slot for a sandbox. It denies everything until a policy is published in it.
    pub(crate) fn allocate(&mut self, spec: &SandboxSpec) -> Result<Slot, AgentError> {
        let id = &spec.sandbox_id;
        let Some(slot) = self.take_free() else {
            let limit = MAX_SANDBOXES - 1;
            return Err(AgentError::SlotsExhausted { sandbox: id.clone(), limit });
        };
        self.assign(slot, id);
        self.dataplane.prepare_slot(slot, &endpoint_addresses_for(spec)).map_err(|cause| {
            self.release(slot);
            AgentError::Failed {
                sandbox: id.clone(),
                failure: "cannot prepare its slot",
                consequence: "nothing was changed",
                cause,
            }
        })?;
        Ok(slot)
    }

    /// Prepares the slot of an adopted sandbox, unless a policy is in force in it.
    pub(crate) fn prepare_if_empty(&self, slot: Slot, spec: &SandboxSpec) -> Result<()> {
        match self.dataplane.published_policy(slot)? {
            Some(_) => Ok(()),
            None => self.dataplane.prepare_slot(slot, &endpoint_addresses_for(spec)),
        }
    }

    /// Attributes events from this slot to this sandbox.
    pub(crate) fn assign(&self, slot: Slot, sandbox: &SandboxId) {
        self.attribution.assign_slot(slot, sandbox);
    }

    /// Empties a slot and frees it. Its proxy listeners must be closed already.
    pub(crate) fn release(&mut self, slot: Slot) {
        if let Err(error) = self.dataplane.release_slot(slot) {
            // The slot stays allocated. One that is not empty must not be given to another sandbox.
            tracing::error!(slot = slot.get(), "cannot empty a slot: {error:#}");
            return;
        }
        self.attribution.release_slot(slot);
        self.allocated.free(slot);
    }

    /// Allocates a free slot. Returns `None` if there is none.
    pub(crate) fn take_free(&mut self) -> Option<Slot> {
        self.allocated.allocate()
    }

    /// Allocates this slot. Returns `false` if it is already allocated.
    pub(crate) fn reserve(&mut self, slot: Slot) -> bool {
        self.allocated.reserve(slot)
    }

    /// Returns whether a slot is allocated.
    pub(crate) fn is_allocated(&self, slot: Slot) -> bool {
        self.allocated.is_allocated(slot)
    }

    /// Reserves the slots of orphaned gates. If there are such gates, also reserves all other slots
    /// with a policy. If there are none, empties the slots that no sandbox has.
    pub(crate) fn reserve_orphaned(&mut self, orphaned_pins: &BTreeSet<String>) -> Result<()> {
        for pin_name in orphaned_pins {
            if let Some(slot) = self.dataplane.attached_slot(pin_name)? {
                self.reserve(slot);
            }
        }
        let free: Vec<Slot> = Slot::all().filter(|slot| !self.is_allocated(*slot)).collect();
        for slot in free {
            if self.dataplane.published_policy(slot)?.is_none() {
                continue;
            }
            if orphaned_pins.is_empty() {
                self.dataplane.release_slot(slot)?;
            } else {
                self.reserve(slot);
            }
        }
        Ok(())
    }

    /// Returns the counters of a sandbox so far, in all slots that it had.
    pub(crate) fn accumulated_counters(&self, sandbox: &Sandbox) -> ReasonCounters {
        total_counters(sandbox, &*self.dataplane).unwrap_or_else(|error| {
            tracing::warn!(sandbox = %sandbox.id(), "counters lost: {error:#}");
            *sandbox.previous_counters
        })
    }

    /// Drops owners of slots that no event can refer to any more.
    pub(crate) fn prune(&self) {
        self.attribution.prune();
    }
}

/// Allocates slots round-robin, so that a released slot stays unused for as long as possible. Late
/// events of its old sandbox are then not attributed to a new one.
#[derive(Debug, Default)]
struct AllocatedSlots {
    allocated: HashSet<Slot>,
    last: u32,
}

impl AllocatedSlots {
    /// Allocates a free slot. Returns `None` if there is none.
    fn allocate(&mut self) -> Option<Slot> {
        let candidates = (1..MAX_SANDBOXES).map(|step| (self.last + step) % MAX_SANDBOXES);
        let slot = candidates.filter_map(Slot::new).find(|slot| !self.allocated.contains(slot))?;
        self.last = slot.get();
        self.allocated.insert(slot);
        Some(slot)
    }

    /// Allocates this slot. Returns `false` if it is already allocated.
    fn reserve(&mut self, slot: Slot) -> bool {
        self.last = self.last.max(slot.get());
        self.allocated.insert(slot)
    }

    fn is_allocated(&self, slot: Slot) -> bool {
        self.allocated.contains(&slot)
    }

    fn free(&mut self, slot: Slot) {
        self.allocated.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_handed_out_once_and_a_free_one_comes_last() {
        let mut allocator = AllocatedSlots::default();
        let first = allocator.allocate().expect("a slot");
        allocator.free(first);
        let rest: HashSet<Slot> = std::iter::from_fn(|| allocator.allocate()).collect();
        assert_eq!(rest.len(), MAX_SANDBOXES as usize - 1);
        assert_eq!(allocator.last, first.get());
        assert!(!allocator.reserve(first));
        allocator.free(first);
        assert!(allocator.reserve(first) && allocator.is_allocated(first));
    }
}
