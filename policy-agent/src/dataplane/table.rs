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
    fn children<'a>(self, entries: &'a [Entry]) -> Vec<(usize, &'a [Entry])> {
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
