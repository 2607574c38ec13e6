//! Builds the poptries of large policies. `policy_common::poptrie` documents the layout.

use policy_common::{
    poptrie::{
        POPTRIE_LEAF_BIT, POPTRIE_NODE_WORDS, POPTRIE_ROOT_BITS, POPTRIE_ROOT_WORDS,
        POPTRIE_STRIDE_BITS, encode_leaf,
    },
    verdict::Verdict,
};

/// A prefix and its verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixVerdict {
    /// The network, left-aligned, with host bits zero.
    pub network: u128,
    /// Prefix length in bits.
    pub prefix_length: u32,
    /// The verdict for addresses with this longest match.
    pub verdict: Verdict,
}

/// Builds a poptrie and returns the words of the block. One of the prefixes must have length 0.
pub(crate) fn build_poptrie(mut entries: Vec<PrefixVerdict>) -> Vec<u64> {
    // Every prefix follows the prefixes that contain it, so that later ones overwrite earlier ones.
    entries.sort_by_key(|entry| (entry.network, entry.prefix_length));
    let default = entries.first().map_or(0, |entry| encode_leaf(entry.verdict));
    let mut table = PoptrieBuilder { words: vec![0; POPTRIE_ROOT_WORDS] };
    let level = PoptrieLevel { offset: 0, bits: POPTRIE_ROOT_BITS };
    let root_leaves = level.leaf_words(&entries, default);
    let children = level.child_groups(&entries);
    let mut references: Vec<u32> = table.push_root_leaves(&root_leaves);
    for (slot, under) in children {
        let node = table.reserve_nodes(1);
        references[slot] = node;
        table.fill_node(node, under, POPTRIE_ROOT_BITS, root_leaves[slot]);
    }
    for (word, both) in table.words.iter_mut().zip(references.chunks_exact(2)) {
        *word = pack_references(both[0], both[1]);
    }
    table.words
}

/// Two references as they are laid out in memory.
fn pack_references(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

struct PoptrieBuilder {
    words: Vec<u64>,
}

impl PoptrieBuilder {
    /// Allocates adjacent nodes and returns a reference to the first.
    fn reserve_nodes(&mut self, nodes: usize) -> u32 {
        let first = self.next_reference();
        self.words.resize(self.words.len() + nodes * POPTRIE_NODE_WORDS as usize, 0);
        first
    }

    /// Writes a node and its descendants.
    fn fill_node(&mut self, node: u32, entries: &[PrefixVerdict], offset: u32, default: u64) {
        let level = PoptrieLevel { offset, bits: POPTRIE_STRIDE_BITS };
        let leaves = level.leaf_words(entries, default);
        let children = level.child_groups(entries);
        let first_child = self.reserve_nodes(children.len());
        let first_leaf = self.next_reference();
        let (mut nodes, mut starts) = (0_u64, 0_u64);
        for (slot, _) in &children {
            nodes |= 1 << slot;
        }
        let mut last = None;
        for (slot, word) in leaves.iter().enumerate() {
            if nodes & (1 << slot) == 0 && last != Some(*word) {
                starts |= 1 << slot;
                self.words.push(*word);
                last = Some(*word);
            }
        }
        let at = node as usize;
        self.words[at] = nodes;
        self.words[at + 1] = starts;
        self.words[at + 2] = pack_references(first_child, first_leaf);
        let mut child = first_child;
        for (slot, under) in children {
            self.fill_node(child, under, offset + POPTRIE_STRIDE_BITS, leaves[slot]);
            child += POPTRIE_NODE_WORDS;
        }
    }

    /// Adds one leaf per run of equal verdicts and returns the references of the root's slots.
    fn push_root_leaves(&mut self, slots: &[u64]) -> Vec<u32> {
        let mut last = None;
        let leaf = |word: &u64| {
            if last != Some(*word) {
                self.words.push(*word);
                last = Some(*word);
            }
            POPTRIE_LEAF_BIT | (self.next_reference() - 1)
        };
        slots.iter().map(leaf).collect()
    }

    /// A reference to the next word. A block too long for a valid reference fits no class and is
    /// never used.
    fn next_reference(&self) -> u32 {
        u32::try_from(self.words.len()).unwrap_or(u32::MAX) & !POPTRIE_LEAF_BIT
    }
}

/// The position of a node: the number of bits before it and the number that it consumes.
#[derive(Clone, Copy)]
struct PoptrieLevel {
    offset: u32,
    bits: u32,
}

impl PoptrieLevel {
    /// The verdict of each slot, from the prefixes that end at this level.
    fn leaf_words(self, entries: &[PrefixVerdict], default: u64) -> Vec<u64> {
        let mut leaves = vec![default; 1 << self.bits];
        for entry in entries.iter().filter(|entry| self.ends_here(entry)) {
            let first = self.child_index(entry);
            let count = 1_usize << (self.offset + self.bits - entry.prefix_length);
            leaves[first..first + count].fill(encode_leaf(entry.verdict));
        }
        leaves
    }

    /// The slots that contain longer prefixes, and all prefixes of these slots.
    fn child_groups(self, entries: &[PrefixVerdict]) -> Vec<(usize, &[PrefixVerdict])> {
        let groups = entries.chunk_by(|a, b| self.child_index(a) == self.child_index(b));
        let deeper = |group: &&[PrefixVerdict]| group.iter().any(|entry| self.goes_deeper(entry));
        groups.filter(deeper).map(|group| (self.child_index(&group[0]), group)).collect()
    }

    /// Whether the prefix ends at this level and not above.
    fn ends_here(self, entry: &PrefixVerdict) -> bool {
        (entry.prefix_length > self.offset || self.offset == 0) && !self.goes_deeper(entry)
    }

    fn goes_deeper(self, entry: &PrefixVerdict) -> bool {
        entry.prefix_length > self.offset + self.bits
    }

    fn child_index(self, entry: &PrefixVerdict) -> usize {
        let below = entry.network << self.offset;
        usize::try_from(below >> (128 - self.bits)).unwrap_or(0) // at most 16 bits
    }
}

#[cfg(test)]
mod tests {
    use policy_common::poptrie::{decode_leaf, mask_through_bit};
    use proptest::prelude::*;

    use super::*;

    /// The kernel program's search, in plain Rust.
    fn search_poptrie(words: &[u64], address: u128) -> u32 {
        let half = |word: u64, second: bool| {
            let bytes = word.to_ne_bytes();
            let at = if second { 4 } else { 0 };
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let slot = (address >> 112) as usize;
        let mut reference = half(words[slot / 2], slot % 2 == 1);
        let mut rest = address << POPTRIE_ROOT_BITS;
        while reference & POPTRIE_LEAF_BIT == 0 {
            let bit = (rest >> 122) as u64;
            rest <<= POPTRIE_STRIDE_BITS;
            let node = reference as usize;
            let before = |word: u64| (word & mask_through_bit(bit)).count_ones() - 1;
            reference = if words[node] >> bit & 1 == 1 {
                half(words[node + 2], false) + POPTRIE_NODE_WORDS * before(words[node])
            } else {
                POPTRIE_LEAF_BIT | (half(words[node + 2], true) + before(words[node + 1]))
            };
        }
        decode_leaf(words[(reference & !POPTRIE_LEAF_BIT) as usize]).rule_index
    }

    fn longest_match(entries: &[PrefixVerdict], address: u128) -> u32 {
        let holds =
            |entry: &&PrefixVerdict| mask_prefix(address, entry.prefix_length) == entry.network;
        entries
            .iter()
            .filter(holds)
            .max_by_key(|entry| entry.prefix_length)
            .expect("a /0")
            .verdict
            .rule_index
    }

    fn mask_prefix(address: u128, length: u32) -> u128 {
        if length == 0 { 0 } else { address & (u128::MAX << (128 - length)) }
    }

    /// Prefixes concentrated in a few ranges, so that many are nested.
    fn nested_prefixes() -> impl Strategy<Value = Vec<(u128, u32)>> {
        let place =
            prop_oneof![Just(0), Just(u128::MAX), Just(0x2001_0db8_u128 << 96), any::<u128>()];
        let prefix = (place, any::<u128>(), 1_u32..=128, 0_u32..=128).prop_map(
            |(place, noise, length, near)| {
                (mask_prefix(place, near) | (noise & !mask_prefix(u128::MAX, near)), length)
            },
        );
        prop::collection::vec(prefix, 0..200)
    }

    proptest! {
        #[test]
        fn the_table_finds_the_longest_match(prefixes in nested_prefixes(), strays in prop::collection::vec(any::<u128>(), 20)) {
            let verdict = |rule| Verdict { reason_code: 6, flags: 0, policy_id: 1, rule_index: rule };
            let mut entries = vec![PrefixVerdict { network: 0, prefix_length: 0, verdict: verdict(0) }];
            for (rule, (address, length)) in (1..).zip(prefixes) {
                let network = mask_prefix(address, length);
                if !entries.iter().any(|e| e.network == network && e.prefix_length == length) {
                    entries.push(PrefixVerdict { network, prefix_length: length, verdict: verdict(rule) });
                }
            }
            let words = build_poptrie(entries.clone());
            let edges = entries.iter().flat_map(|entry| {
                let last = entry.network | !mask_prefix(u128::MAX, entry.prefix_length);
                [entry.network, last, entry.network.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in edges.chain(strays) {
                prop_assert_eq!(search_poptrie(&words, address), longest_match(&entries, address));
            }
        }
    }
}
