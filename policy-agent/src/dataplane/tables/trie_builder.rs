//! Builds the block of a compiled policy: a level-compressed trie per address family
//! (`policy_common::policy_table`).

mod leaf_ranges;

use std::ops::Range;

use policy_common::{
    policy_table::{
        self, BLOCK_ALIGNMENT_WORDS, BLOCK_HEADER_WORDS, BLOCK_LENGTH, BLOCK_ROOT_V4,
        BLOCK_ROOT_V6, MAX_BRANCH_BITS, MAX_PATH_BITS, MIN_STEP_BITS, PATH_WORDS,
    },
    range_node::{NARROW_RANGES, SMALL_WIDE_RANGES, WIDE_RANGES},
    verdict::Verdict,
};

use self::leaf_ranges::LeafRanges;
use crate::policy::compile::CompiledPolicy;

/// Minimum number of bits of a root. A few hundred words make most lookups one step shorter.
const MIN_ROOT_BITS: u32 = 8;
/// A branch has at most this many references for each one that leads to a prefix of its own.
const MAX_SPARSENESS: usize = 4;
/// Alignment of paths in words, so that each lies in one cache line.
const PATH_ALIGNMENT_WORDS: u32 = 8;
/// The number of address bits of each family.
const IPV4_BITS: u32 = 32;
const IPV6_BITS: u32 = 128;

/// Builds the block of a policy, without its ID and digest. `None` if a verdict does not fit into a
/// leaf, or the block is too large for its references.
pub(crate) fn build_block(compiled: &CompiledPolicy) -> Option<Vec<u32>> {
    let v4: Option<Vec<_>> = compiled
        .ipv4_entries
        .iter()
        .map(|(prefix, verdict)| {
            let network = u128::from(u32::from(prefix.network())) << 96;
            LeafPrefix::new(network, prefix.prefix_len(), *verdict)
        })
        .collect();
    let v6: Option<Vec<_>> = compiled
        .ipv6_entries
        .iter()
        .map(|(prefix, verdict)| {
            LeafPrefix::new(prefix.network().into(), prefix.prefix_len(), *verdict)
        })
        .collect();
    let mut builder =
        TrieBuilder { words: vec![0; BLOCK_HEADER_WORDS as usize], ..TrieBuilder::default() };
    builder.words[BLOCK_ROOT_V4 as usize] = builder.build_root(&v4?, IPV4_BITS);
    builder.words[BLOCK_ROOT_V6 as usize] = builder.build_root(&v6?, IPV6_BITS);
    builder.finish()
}

/// A prefix and its leaf.
#[derive(Clone, Copy)]
struct LeafPrefix {
    /// Left-aligned.
    network: u128,
    length: u32,
    leaf: u32,
}

impl LeafPrefix {
    fn new(network: u128, length: u8, verdict: Verdict) -> Option<Self> {
        Some(Self { network, length: length.into(), leaf: policy_table::encode_leaf(verdict)? })
    }
}

/// A part of the trie: the addresses that share the first `depth` bits.
#[derive(Clone, Copy)]
struct Subtree<'a> {
    /// The prefixes in it, sorted, all longer than `depth`.
    prefixes: &'a [LeafPrefix],
    depth: u32,
    /// The leaf of addresses that no prefix contains.
    default: u32,
    /// The number of bits of the family's addresses.
    width: u32,
}

#[derive(Default)]
struct TrieBuilder {
    words: Vec<u32>,
    /// The leaves of range nodes. They follow all nodes, which so lie closer together.
    leaves: Vec<u32>,
    /// Where range nodes refer to `leaves`: by index, until these have a place.
    leaf_references: Vec<u32>,
    ranges: LeafRanges,
}

impl TrieBuilder {
    /// Builds a family's trie. Returns the reference of its root. `prefixes` are sorted and contain
    /// /0.
    fn build_root(&mut self, prefixes: &[LeafPrefix], width: u32) -> u32 {
        let Some((all, others)) = prefixes.split_first().filter(|(all, _)| all.length == 0) else {
            return 0;
        };
        let subtree = Subtree { prefixes: others, depth: 0, default: all.leaf, width };
        if others.is_empty() {
            return all.leaf;
        }
        self.build_branch(subtree, subtree.branch_bits().max(MIN_ROOT_BITS))
    }

    fn build(&mut self, subtree: Subtree<'_>) -> u32 {
        let Subtree { prefixes, depth, default, width } = subtree;
        match prefixes {
            [] => default,
            [same, rest @ ..] if same.length == depth => {
                self.build(Subtree { prefixes: rest, depth, default: same.leaf, width })
            }
            [_, ..] if let Some(reference) = self.build_ranges(subtree) => reference,
            _ => match subtree.common_bits() {
                common if common > MIN_STEP_BITS => self.build_path(subtree, common),
                _ => self.build_branch(subtree, subtree.branch_bits()),
            },
        }
    }

    /// Builds a range node, if one can hold all prefixes.
    fn build_ranges(&mut self, subtree: Subtree<'_>) -> Option<u32> {
        let shape = [NARROW_RANGES, SMALL_WIDE_RANGES, WIDE_RANGES]
            .into_iter()
            .find(|shape| self.ranges.fill(subtree, *shape).is_some())?;
        let ranges = self.ranges.as_slice();
        let node = shape.encode(ranges, u32::try_from(self.leaves.len()).ok()?);
        self.leaves.extend(ranges.iter().map(|(_, leaf)| leaf));
        let offset = self.allocate(shape.words, shape.words, 0);
        let words = &mut self.words[offset as usize..];
        words.copy_from_slice(&node[..words.len()]);
        self.leaf_references.push(offset + shape.leaves_offset());
        Some(policy_table::ranges_reference(shape, offset))
    }

    fn build_path(&mut self, subtree: Subtree<'_>, common: u32) -> u32 {
        let Subtree { prefixes, depth, default, .. } = subtree;
        let bits = common.min(MAX_PATH_BITS);
        let offset = self.allocate(PATH_WORDS, PATH_ALIGNMENT_WORDS, default);
        let shared = prefixes[0].network << depth;
        let path = u64::try_from(shared >> 64).unwrap_or(0) & !(u64::MAX >> bits);
        let rest = Subtree { depth: depth + bits, ..subtree };
        let next = match common - bits {
            0 => self.build(rest),
            left => self.build_path(rest, left),
        };
        let halves = [path >> 32, path & u64::from(u32::MAX)];
        let [high, low] = halves.map(|half| u32::try_from(half).unwrap_or(0));
        let words = [bits, high, low, default, next];
        self.words[offset as usize..][..words.len()].copy_from_slice(&words);
        policy_table::path_reference(offset)
    }

    fn build_branch(&mut self, subtree: Subtree<'_>, bits: u32) -> u32 {
        let Subtree { mut prefixes, depth, default, width } = subtree;
        let offset = self.allocate(1 << bits, BLOCK_ALIGNMENT_WORDS, default);
        while let [first, rest @ ..] = prefixes {
            let slots = subtree.slots_of(first, bits);
            if first.length <= depth + bits {
                let slots = slots.start + offset as usize..slots.end + offset as usize;
                self.words[slots].fill(first.leaf);
                prefixes = rest;
                continue;
            }
            let end = prefixes.partition_point(|prefix| subtree.slots_of(prefix, bits) == slots);
            let (children, others) = prefixes.split_at(end);
            let slot = offset as usize + slots.start;
            let child = Subtree {
                prefixes: children,
                depth: depth + bits,
                default: self.words[slot],
                width,
            };
            self.words[slot] = self.build(child);
            prefixes = others;
        }
        policy_table::branch_reference(bits, offset)
    }

    /// Appends words with this value. Returns their offset.
    fn allocate(&mut self, words: u32, alignment: u32, value: u32) -> u32 {
        let offset = self.words.len().next_multiple_of(alignment as usize);
        self.words.resize(offset, 0);
        self.words.resize(offset + words as usize, value);
        u32::try_from(offset).unwrap_or(u32::MAX)
    }

    fn finish(mut self) -> Option<Vec<u32>> {
        let leaves = u32::try_from(self.words.len()).ok()?;
        for reference in self.leaf_references {
            self.words[reference as usize] += leaves;
        }
        self.words.append(&mut self.leaves);
        let length = self.words.len().next_multiple_of(BLOCK_ALIGNMENT_WORDS as usize);
        self.words.resize(length, 0);
        if length > policy_table::TABLE_MEMORY_WORDS {
            return None;
        }
        self.words[BLOCK_LENGTH as usize] = u32::try_from(length).ok()?;
        Some(self.words)
    }
}

impl Subtree<'_> {
    /// The number of bits after `depth` that all prefixes have and share.
    fn common_bits(&self) -> u32 {
        let [first, .., last] = self.prefixes else {
            return self.prefixes.first().map_or(0, |only| only.length - self.depth);
        };
        let shortest = self.prefixes.iter().map(|prefix| prefix.length).min().unwrap_or(0);
        shortest.min((first.network ^ last.network).leading_zeros()) - self.depth
    }

    /// The largest number of bits for a branch that is not too sparse.
    fn branch_bits(&self) -> u32 {
        let left = self.width - self.depth;
        let most =
            MAX_BRANCH_BITS.min(left).min(self.prefixes.len().ilog2() + MAX_SPARSENESS.ilog2());
        let least = MIN_STEP_BITS.min(left);
        let is_dense = |bits: &u32| 1 << bits <= MAX_SPARSENESS * self.occupied_slots(*bits);
        (least..=most).rev().find(is_dense).unwrap_or(least)
    }

    /// The number of references of a branch that lead to a prefix of their own.
    fn occupied_slots(&self, bits: u32) -> usize {
        let starts = self.prefixes.iter().map(|prefix| self.slots_of(prefix, bits).start);
        let mut previous = None;
        starts.filter(|start| previous.replace(*start) != Some(*start)).count()
    }

    /// The references of a branch at this depth that lead to addresses of a prefix.
    fn slots_of(&self, prefix: &LeafPrefix, bits: u32) -> Range<usize> {
        let first = prefix.network << self.depth >> (128 - bits);
        let count = 1 << (self.depth + bits).saturating_sub(prefix.length);
        let first = usize::try_from(first).unwrap_or(0);
        first..first + count
    }
}

#[cfg(test)]
mod tests;
