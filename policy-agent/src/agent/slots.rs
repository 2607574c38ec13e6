//! Which slots of the kernel's tables are taken.

use std::collections::HashSet;

use policy_common::sandbox::MAX_SANDBOXES;

use crate::dataplane::Slot;

/// Hands out slots in turn: one that was given back rests as long as possible, so that late events
/// of its old sandbox are not taken for the new one's.
#[derive(Debug, Default)]
pub struct Slots {
    taken: HashSet<Slot>,
    last: u32,
}

impl Slots {
    /// A free slot, taken from now on; `None` when there is none.
    pub fn take(&mut self) -> Option<Slot> {
        let turns = (1..MAX_SANDBOXES).map(|step| (self.last + step) % MAX_SANDBOXES);
        let slot = turns.filter_map(Slot::new).find(|slot| !self.taken.contains(slot))?;
        self.last = slot.get();
        self.taken.insert(slot);
        Some(slot)
    }

    /// Takes a certain slot: `false` when it is taken already.
    pub fn claim(&mut self, slot: Slot) -> bool {
        self.last = self.last.max(slot.get());
        self.taken.insert(slot)
    }

    /// Whether a slot is taken.
    #[must_use]
    pub fn is_taken(&self, slot: Slot) -> bool {
        self.taken.contains(&slot)
    }

    /// Gives a slot back.
    pub fn free(&mut self, slot: Slot) {
        self.taken.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_handed_out_once_and_a_free_one_comes_last() {
        let mut slots = Slots::default();
        let first = slots.take().expect("a slot");
        slots.free(first);
        let rest: HashSet<Slot> = std::iter::from_fn(|| slots.take()).collect();
        assert_eq!(rest.len(), MAX_SANDBOXES as usize - 1);
        assert_eq!(slots.last, first.get());
        assert!(!slots.claim(first));
        slots.free(first);
        assert!(slots.claim(first) && slots.is_taken(first));
    }
}
