//! The ranges of addresses that a part of a trie distinguishes, for a range node.

use policy_common::range_node::RangeShape;

use super::{LeafPrefix, Subtree};

/// Ranges, each with its start and its leaf, ascending. The first starts at 0.
#[derive(Default)]
pub(super) struct LeafRanges(Vec<(u32, u32)>);

impl LeafRanges {
    pub(super) fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }

    /// Replaces the ranges by those of a subtree. `None` if they do not fit into a node of this
    /// shape.
    pub(super) fn fill(&mut self, subtree: Subtree<'_>, shape: RangeShape) -> Option<()> {
        let Subtree { prefixes, depth, default, .. } = subtree;
        if prefixes.len() > shape.max_ranges {
            return None;
        }
        self.0.clear();
        self.0.push((0, default));
        for prefix in prefixes {
            let (start, end) = bounds_of(prefix, depth, shape.bits)?;
            self.paint(start, end, prefix.leaf, 1 << shape.bits);
        }
        self.0.dedup_by_key(|(_, leaf)| *leaf);
        (self.0.len() <= shape.max_ranges).then_some(())
    }

    /// Sets the leaf of the addresses from `start` up to, but not including `end`. `limit` is the
    /// number of all addresses.
    fn paint(&mut self, start: u32, end: u32, leaf: u32, limit: u32) {
        let first = self.0.partition_point(|(at, _)| *at < start);
        let next = self.0.partition_point(|(at, _)| *at <= end);
        let after = self.0[next - 1].1;
        let rest = (end < limit).then_some((end, after));
        self.0.splice(first..next, [(start, leaf)].into_iter().chain(rest));
    }
}

/// The first address of a prefix and the one behind its last, in the next `bits` bits after
/// `depth`. `None` if it is longer.
fn bounds_of(prefix: &LeafPrefix, depth: u32, bits: u32) -> Option<(u32, u32)> {
    let host_bits = (depth + bits).checked_sub(prefix.length)?;
    let start = u32::try_from(prefix.network << depth >> (128 - bits)).ok()?;
    Some((start, start + (1 << host_bits)))
}
