//! The range node of a policy's trie: up to 16 ranges of addresses in one cache line or half of it,
//! searched without a branch. The processor cannot foresee which way a packet's address leads, and a
//! wrong guess takes as long as a read from its second cache.
//!
//! | words | in half a line | content |
//! |---|---|---|
//! | 0 to 7 | 0 to 3 | where each range but the first starts, ascending: the next bits of the address, in 16 or 32 bits each |
//! | 8 to 11 | 4, 5 | a byte for each range: the lowest of its leaf (reason code and flags) |
//! | 12 | 6 | offset of the ranges' leaves in the block, one word each |

use crate::policy_table::{LEAF_BIT, TableWords};

/// Maximum size of a range node in words: a cache line.
const MAX_NODE_WORDS: usize = 16;

/// A kind of range nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeShape {
    /// Size of a node in words, and its alignment.
    pub words: u32,
    /// The number of address bits that a node compares.
    pub bits: u32,
    /// The maximum number of ranges in a node.
    pub max_ranges: usize,
}

/// Many ranges that differ in few bits.
pub const NARROW_RANGES: RangeShape = RangeShape { words: 16, bits: 15, max_ranges: 16 };
/// Few ranges that differ in many bits.
pub const WIDE_RANGES: RangeShape = RangeShape { words: 16, bits: 31, max_ranges: 9 };
/// Fewer of them in half a cache line.
pub const SMALL_WIDE_RANGES: RangeShape = RangeShape { words: 8, bits: 31, max_ranges: 5 };

impl RangeShape {
    /// Offset in a node: the bytes of leaves, behind the starts.
    const fn leaf_bytes(self) -> u32 {
        self.words / 2
    }

    /// Offset in a node: the offset of the leaves.
    #[must_use]
    pub const fn leaves_offset(self) -> u32 {
        self.words / 4 * 3
    }

    /// Encodes ranges, each with its start and its leaf. The first starts at 0. `leaves` is the
    /// offset at which the leaves will be. The node is the first [`Self::words`] words.
    #[must_use]
    pub fn encode(self, ranges: &[(u32, u32)], leaves: u32) -> [u32; MAX_NODE_WORDS] {
        let mut node = [0; MAX_NODE_WORDS];
        let starts = ranges.iter().skip(1).map(|(start, _)| *start);
        // No address reaches a start that needs one bit more.
        let starts = starts.chain(core::iter::repeat(1 << self.bits));
        let lane = self.bits + 1;
        for (place, start) in (0..self.leaf_bytes() * 32 / lane).zip(starts) {
            node[(place * lane / 32) as usize] |= start << (place * lane % 32);
        }
        for (place, (_, leaf)) in (0..16).zip(ranges) {
            node[(self.leaf_bytes() + place / 4) as usize] |= (leaf & 0xff) << (place % 4 * 8);
        }
        node[self.leaves_offset() as usize] = leaves;
        node
    }
}

/// A shape that a lookup knows when it is compiled.
pub(crate) trait KnownShape {
    const SHAPE: RangeShape;
}

/// [`NARROW_RANGES`].
pub(crate) struct Narrow;
/// [`WIDE_RANGES`].
pub(crate) struct Wide;
/// [`SMALL_WIDE_RANGES`].
pub(crate) struct SmallWide;

impl KnownShape for Narrow {
    const SHAPE: RangeShape = NARROW_RANGES;
}
impl KnownShape for Wide {
    const SHAPE: RangeShape = WIDE_RANGES;
}
impl KnownShape for SmallWide {
    const SHAPE: RangeShape = SMALL_WIDE_RANGES;
}

/// Finds the leaf of an address in a node of this shape. `high` is what is left of the address,
/// left-aligned. Unless `WHOLE`, the leaf lacks its rule, which is in another cache line.
#[inline(always)]
pub(crate) fn find_leaf_in_ranges<S: KnownShape, const WHOLE: bool>(
    words: &impl TableWords,
    block: u32,
    node: u32,
    high: u64,
) -> u32 {
    let range = find_range::<S>(words, node, high);
    if WHOLE {
        let leaves = words.word(node.wrapping_add(S::SHAPE.leaves_offset()));
        return words.word(block.wrapping_add(leaves).wrapping_add(range));
    }
    let bytes = words.word(node.wrapping_add(S::SHAPE.leaf_bytes()).wrapping_add(range >> 2));
    LEAF_BIT | bytes >> ((range & 3) * 8) & 0xff
}

/// The index of the range that an address is in.
///
/// Compares several starts at once: each is in a lane of its own, with the bit above it set in the
/// minuend, where it stays if the difference is not negative (Lamport, *Multiple byte processing with
/// full-word instructions*, 1975).
#[inline(always)]
fn find_range<S: KnownShape>(words: &impl TableWords, node: u32, high: u64) -> u32 {
    let RangeShape { bits, .. } = S::SHAPE;
    let lane = bits + 1;
    let ones = u64::MAX / ((1 << lane) - 1);
    let guards = ones << bits;
    let minuend = (high >> (64 - bits)).wrapping_mul(ones) | guards;
    let reached = |pair| {
        let starts = words.pair(node.wrapping_add(pair));
        (minuend.wrapping_sub(starts) & guards) >> bits
    };
    let mut counts = reached(0).wrapping_add(reached(2));
    if S::SHAPE.leaf_bytes() == 8 {
        counts = counts.wrapping_add(reached(4)).wrapping_add(reached(6));
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 16")]
    let range = (counts.wrapping_mul(ones) >> (64 - lane)) as u32;
    range
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    fn check<S: KnownShape>(starts: &[u32]) {
        let bits = S::SHAPE.bits;
        let ranges: Vec<_> = (1..).zip(starts).map(|(leaf, start)| (*start, leaf)).collect();
        let node = S::SHAPE.encode(&ranges, 0);
        for address in starts.iter().flat_map(|start| [start.saturating_sub(1), *start, start + 1])
        {
            let address = address.min((1 << bits) - 1);
            let expected = starts.iter().filter(|start| **start <= address).count() - 1;
            let high = u64::from(address) << (64 - bits) | 12_345;
            let leaf = find_leaf_in_ranges::<S, false>(&node.as_slice(), 0, 0, high);
            assert_eq!(leaf, LEAF_BIT | ranges[expected].1, "{address} in {starts:?}");
        }
    }

    #[test]
    fn an_address_is_in_the_last_range_that_starts_before_it() {
        let narrow: Vec<u32> = (0..16).map(|place| place * 2_184).collect();
        let wide: Vec<u32> = (0..9).map(|place| place * 268_435_455).collect();
        for count in 1..=16 {
            check::<Narrow>(&narrow[..count]);
            check::<Wide>(&wide[..count.min(9)]);
            check::<SmallWide>(&wide[..count.min(5)]);
        }
        check::<Narrow>(&[0, 1, 2, 0x3fff, 0x4000, 0x7ffe, 0x7fff]);
        check::<Wide>(&[0, 1, 0xffff, 0x1_0000, 0x7fff_fffe, 0x7fff_ffff]);
        check::<SmallWide>(&[0, 1, 0xffff, 0x7fff_fffe, 0x7fff_ffff]);
    }
}
