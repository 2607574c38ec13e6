//! Allocates blocks in the memory for tables.

use std::collections::BTreeMap;

use policy_common::policy_table::BLOCK_ALIGNMENT_WORDS;

/// The free parts of the memory. All sizes and indexes are in words.
pub(crate) struct BlockAllocator {
    /// Start → length. No two parts touch.
    free_parts: BTreeMap<u32, u32>,
}

impl BlockAllocator {
    /// An allocator for a memory of this size. No block starts at index 0, which means that there is
    /// none.
    pub(crate) fn new(words: u32) -> Self {
        let rest = words.saturating_sub(BLOCK_ALIGNMENT_WORDS);
        Self { free_parts: BTreeMap::from([(BLOCK_ALIGNMENT_WORDS, rest)]) }
    }

    /// Allocates a block in the smallest part that it fits in. Returns its start.
    pub(crate) fn allocate(&mut self, words: u32) -> Option<u32> {
        let words = words.checked_next_multiple_of(BLOCK_ALIGNMENT_WORDS)?;
        let fitting = self.free_parts.iter().filter(|(_, length)| **length >= words);
        let (start, length) = fitting.min_by_key(|(_, length)| **length).map(|(s, l)| (*s, *l))?;
        self.free_parts.remove(&start);
        if length > words {
            self.free_parts.insert(start + words, length - words);
        }
        Some(start)
    }

    /// Reserves a block that an earlier agent allocated. Returns `false` if it is not free.
    pub(crate) fn reserve(&mut self, start: u32, words: u32) -> bool {
        let Some(words) = words.checked_next_multiple_of(BLOCK_ALIGNMENT_WORDS) else {
            return false;
        };
        let Some((&part, &length)) = self.free_parts.range(..=start).next_back() else {
            return false;
        };
        let (Some(end), part_end) = (start.checked_add(words), part + length) else { return false };
        if !start.is_multiple_of(BLOCK_ALIGNMENT_WORDS) || end > part_end {
            return false;
        }
        self.free_parts.remove(&part);
        for (start, end) in [(part, start), (end, part_end)] {
            if end > start {
                self.free_parts.insert(start, end - start);
            }
        }
        true
    }

    /// Frees an allocated or reserved block.
    pub(crate) fn free(&mut self, start: u32, words: u32) {
        let (mut start, mut words) = (start, words.next_multiple_of(BLOCK_ALIGNMENT_WORDS));
        if let Some(length) = self.free_parts.remove(&(start + words)) {
            words += length;
        }
        if let Some((&before, &length)) = self.free_parts.range(..start).next_back()
            && before + length == start
        {
            self.free_parts.remove(&before);
            (start, words) = (before, words + length);
        }
        self.free_parts.insert(start, words);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WORDS: u32 = 1024;

    #[test]
    fn what_does_not_fit_is_not_allocated() {
        let mut allocator = BlockAllocator::new(WORDS);
        assert_eq!(allocator.allocate(WORDS), None);
        assert_eq!(allocator.allocate(u32::MAX), None);
        assert_eq!(allocator.allocate(WORDS - 16), Some(16));
        assert_eq!(allocator.allocate(1), None);
    }

    #[test]
    fn a_block_is_reserved_once() {
        let mut allocator = BlockAllocator::new(WORDS);
        assert!(allocator.reserve(64, 32));
        assert!(!allocator.reserve(80, 16) && !allocator.reserve(48, 32));
        assert!(!allocator.reserve(0, 16) && !allocator.reserve(1008, 32));
        assert!(!allocator.reserve(100, 16) && !allocator.reserve(128, u32::MAX));
        assert_eq!(allocator.allocate(48), Some(16));
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_memory_comes_back(
            steps in prop::collection::vec((1_u32..200, any::<prop::sample::Index>()), 1..100),
        ) {
            let mut allocator = BlockAllocator::new(WORDS);
            let mut blocks: Vec<(u32, u32)> = Vec::new();
            for (words, index) in steps {
                match allocator.allocate(words) {
                    Some(start) => {
                        let end = start + words;
                        prop_assert!(start >= 16 && end <= WORDS);
                        prop_assert!(blocks.iter().all(|(s, w)| end <= *s || start >= s + w));
                        blocks.push((start, words));
                    }
                    None if blocks.is_empty() => {}
                    None => {
                        let (start, words) = blocks.swap_remove(index.index(blocks.len()));
                        allocator.free(start, words);
                    }
                }
            }
            for (start, words) in blocks {
                allocator.free(start, words);
            }
            prop_assert_eq!(allocator.allocate(WORDS - 16), Some(16));
        }
    }
}
