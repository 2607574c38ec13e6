//! Which slots of the kernel's tables are taken.

use std::collections::HashSet;

use policy_common::endpoint::MAX_SANDBOXES;

use crate::dataplane::Slot;

/// Hands out slots in turn: one that was given back rests as long as possible, so that late events
/// of its old sandbox are not taken for the new one's.
#[derive(Debug, Default)]
pub struct SlotAllocator {
    allocated: HashSet<Slot>,
    last: u32,
}

impl SlotAllocator {
    /// A free slot, taken from now on; `None` when there is none.
    pub fn allocate(&mut self) -> Option<Slot> {
        let candidates = (1..MAX_SANDBOXES).map(|step| (self.last + step) % MAX_SANDBOXES);
        let slot = candidates.filter_map(Slot::new).find(|slot| !self.allocated.contains(slot))?;
        self.last = slot.get();
        self.allocated.insert(slot);
        Some(slot)
    }

    /// Takes a certain slot: `false` when it is taken already.
    pub fn reserve(&mut self, slot: Slot) -> bool {
        self.last = self.last.max(slot.get());
        self.allocated.insert(slot)
    }

    /// Whether a slot is taken.
    #[must_use]
    pub fn is_allocated(&self, slot: Slot) -> bool {
        self.allocated.contains(&slot)
    }

    /// Gives a slot back.
    pub fn free(&mut self, slot: Slot) {
        self.allocated.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_handed_out_once_and_a_free_one_comes_last() {
        let mut allocator = SlotAllocator::default();
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
