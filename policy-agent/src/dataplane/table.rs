//! Builds the flat tables of large policies; their layout is described in `policy_common::table`.

use policy_common::{
    policy::Verdict,
    table::{LEAF, NODE_WORDS, ROOT_BITS, ROOT_WORDS, STRIDE, to_word},
};

/// One prefix: the network's bits from the top, the length, and what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The network, left-aligned, host bits zero.
    pub network: u128,
    /// Prefix length in bits.
    pub length: u32,
    /// The verdict of addresses whose longest match this is.
    pub verdict: Verdict,
}

/// Builds the table of some prefixes, one of which has length 0: the words of the block.
pub fn build(mut entries: Vec<Entry>) -> Vec<u64> {
    // A prefix comes after every prefix that holds it, so that painting in order is right.
    entries.sort_by_key(|entry| (entry.network, entry.length));
    let default = entries.first().map_or(0, |entry| to_word(entry.verdict));
    let mut table = Table { words: vec![0; ROOT_WORDS] };
    let level = Level { offset: 0, bits: ROOT_BITS };
    let slots = level.paint(&entries, default);
    let children = level.children(&entries);
    let mut references: Vec<u32> = table.leaves_for_root(&slots);
    for (slot, under) in children {
        let node = table.reserve(1);
        references[slot] = node;
        table.fill(node, under, ROOT_BITS, slots[slot]);
    }
    for (word, both) in table.words.iter_mut().zip(references.chunks_exact(2)) {
        *word = pair(both[0], both[1]);
    }
    table.words
}

/// Two references as they stand in memory, one after the other.
fn pair(first: u32, second: u32) -> u64 {
    let [a, b, c, d] = first.to_ne_bytes();
    let [e, f, g, h] = second.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

struct Table {
    words: Vec<u64>,
}

impl Table {
    /// Room for some nodes, side by side: the reference of the first.
    fn reserve(&mut self, nodes: usize) -> u32 {
        let first = self.end();
        self.words.resize(self.words.len() + nodes * NODE_WORDS as usize, 0);
        first
    }

    /// Writes a node and everything below it.
    fn fill(&mut self, node: u32, entries: &[Entry], offset: u32, default: u64) {
        let level = Level { offset, bits: STRIDE };
        let slots = level.paint(entries, default);
        let children = level.children(entries);
        let first_child = self.reserve(children.len());
        let first_leaf = self.end();
        let (mut nodes, mut starts) = (0_u64, 0_u64);
        for (slot, _) in &children {
            nodes |= 1 << slot;
        }
        let mut last = None;
        for (slot, word) in slots.iter().enumerate() {
            if nodes & (1 << slot) == 0 && last != Some(*word) {
                starts |= 1 << slot;
                self.words.push(*word);
                last = Some(*word);
            }
        }
        let at = node as usize;
        self.words[at] = nodes;
        self.words[at + 1] = starts;
        self.words[at + 2] = pair(first_child, first_leaf);
        let mut child = first_child;
        for (slot, under) in children {
            self.fill(child, under, offset + STRIDE, slots[slot]);
            child += NODE_WORDS;
        }
    }

    /// One leaf for each run of equal verdicts: the references of the root's slots.
    fn leaves_for_root(&mut self, slots: &[u64]) -> Vec<u32> {
        let mut last = None;
        let leaf = |word: &u64| {
            if last != Some(*word) {
                self.words.push(*word);
                last = Some(*word);
            }
            LEAF | (self.end() - 1)
        };
        slots.iter().map(leaf).collect()
    }

    /// The reference of the next word. A table this long fits no class, so it is never used.
    fn end(&self) -> u32 {
        u32::try_from(self.words.len()).unwrap_or(u32::MAX) & !LEAF
    }
}

/// Where a node stands: the bits before it, and the bits it consumes.
#[derive(Clone, Copy)]
struct Level {
    offset: u32,
    bits: u32,
}

impl Level {
    /// What the prefixes that end at this level say about each slot.
    fn paint(self, entries: &[Entry], default: u64) -> Vec<u64> {
        let mut slots = vec![default; 1 << self.bits];
        for entry in entries.iter().filter(|entry| self.ends(entry)) {
            let first = self.slot(entry);
            let count = 1_usize << (self.offset + self.bits - entry.length);
            slots[first..first + count].fill(to_word(entry.verdict));
        }
        slots
    }

    /// The slots with prefixes that go deeper, and these prefixes.
    fn children(self, entries: &[Entry]) -> Vec<(usize, &[Entry])> {
        let groups = entries.chunk_by(|a, b| self.slot(a) == self.slot(b));
        let deeper = |group: &&[Entry]| group.iter().any(|entry| self.continues(entry));
        groups.filter(deeper).map(|group| (self.slot(&group[0]), group)).collect()
    }

    /// Ends here, and not above.
    fn ends(self, entry: &Entry) -> bool {
        (entry.length > self.offset || self.offset == 0) && !self.continues(entry)
    }

    fn continues(self, entry: &Entry) -> bool {
        entry.length > self.offset + self.bits
    }

    fn slot(self, entry: &Entry) -> usize {
        let below = entry.network << self.offset;
        usize::try_from(below >> (128 - self.bits)).unwrap_or(0) // at most 16 bits
    }
}

#[cfg(test)]
mod tests {
    use policy_common::table::{from_word, up_to};
    use proptest::prelude::*;

    use super::*;

    /// The search of the kernel program, in plain Rust.
    fn search(words: &[u64], address: u128) -> u32 {
        let half = |word: u64, second: bool| {
            let bytes = word.to_ne_bytes();
            let at = if second { 4 } else { 0 };
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let slot = (address >> 112) as usize;
        let mut reference = half(words[slot / 2], slot % 2 == 1);
        let mut rest = address << ROOT_BITS;
        while reference & LEAF == 0 {
            let bit = (rest >> 122) as u64;
            rest <<= STRIDE;
            let node = reference as usize;
            let before = |word: u64| (word & up_to(bit)).count_ones() - 1;
            reference = if words[node] >> bit & 1 == 1 {
                half(words[node + 2], false) + NODE_WORDS * before(words[node])
            } else {
                LEAF | (half(words[node + 2], true) + before(words[node + 1]))
            };
        }
        from_word(words[(reference & !LEAF) as usize]).rule
    }

    fn longest_match(entries: &[Entry], address: u128) -> u32 {
        let holds = |entry: &&Entry| mask(address, entry.length) == entry.network;
        entries.iter().filter(holds).max_by_key(|entry| entry.length).expect("a /0").verdict.rule
    }

    fn mask(address: u128, length: u32) -> u128 {
        if length == 0 { 0 } else { address & (u128::MAX << (128 - length)) }
    }

    /// Prefixes that crowd in a few places, so that they nest.
    fn prefixes() -> impl Strategy<Value = Vec<(u128, u32)>> {
        let place =
            prop_oneof![Just(0), Just(u128::MAX), Just(0x2001_0db8_u128 << 96), any::<u128>()];
        let prefix = (place, any::<u128>(), 1_u32..=128, 0_u32..=128).prop_map(
            |(place, noise, length, near)| {
                (mask(place, near) | (noise & !mask(u128::MAX, near)), length)
            },
        );
        prop::collection::vec(prefix, 0..200)
    }

    proptest! {
        #[test]
        fn the_table_finds_the_longest_match(prefixes in prefixes(), strays in prop::collection::vec(any::<u128>(), 20)) {
            let verdict = |rule| Verdict { reason: 6, flags: 0, policy: 1, rule };
            let mut entries = vec![Entry { network: 0, length: 0, verdict: verdict(0) }];
            for (rule, (address, length)) in (1..).zip(prefixes) {
                let network = mask(address, length);
                if !entries.iter().any(|e| e.network == network && e.length == length) {
                    entries.push(Entry { network, length, verdict: verdict(rule) });
                }
            }
            let words = build(entries.clone());
            let edges = entries.iter().flat_map(|entry| {
                let last = entry.network | !mask(u128::MAX, entry.length);
                [entry.network, last, entry.network.wrapping_sub(1), last.wrapping_add(1)]
            });
            for address in edges.chain(strays) {
                prop_assert_eq!(search(&words, address), longest_match(&entries, address));
            }
        }
    }
}
