//! Large policies: a compressed multibit trie in one flat block of memory.
//!
//! A Poptrie (Asai and Ohara, SIGCOMM 2015): the first 16 bits of an address index a root directly,
//! then each node consumes 6 bits and finds its child or its leaf by counting bits. The kernel's
//! trie follows one pointer per bit; this one reads one or two cache lines per 6 bits.
//!
//! The block is one value of an array map, so that after one look-up in the map everything else is
//! a plain load. Block sizes come in classes, since all maps behind one array of maps are alike.
//!
//! References are counted in words of 8 bytes from the start of the block:
//!
//! | what | words |
//! |---|---|
//! | root | 2¹⁶ references of 32 bits |
//! | node | 3: children (bit set: a node), leaf starts (bit set: a new leaf), first child and first leaf (low and high half) |
//! | leaf | 1: a [`Verdict`] |

use crate::verdict::Verdict;

/// Bits that the root consumes.
pub const POPTRIE_ROOT_BITS: u32 = 16;
/// Bits that a node consumes.
pub const POPTRIE_STRIDE_BITS: u32 = 6;
/// Words of the root.
pub const POPTRIE_ROOT_WORDS: usize = (1 << POPTRIE_ROOT_BITS) / 2;
/// Words of a node.
pub const POPTRIE_NODE_WORDS: u32 = 3;
/// A reference with this bit is to a leaf, one without it to a node.
pub const POPTRIE_LEAF_BIT: u32 = 1 << 31;

/// Words of a block of the large class: 4 MiB, enough for some 100 000 prefixes.
pub const LARGE_POPTRIE_WORDS: usize = 4 * 1024 * 1024 / 8;
/// Words of a block of the huge class: 32 MiB.
pub const HUGE_POPTRIE_WORDS: usize = 32 * 1024 * 1024 / 8;

/// Policies with more prefixes of a family than this get a table.
pub const MAX_LPM_TRIE_PREFIXES: usize = 4_096;

/// [`Verdict::flags`] of the only entry of a trie that stands for a large table.
pub const VERDICT_IN_LARGE_POPTRIE: u8 = 1 << 6;
/// [`Verdict::flags`] of the only entry of a trie that stands for a huge table.
pub const VERDICT_IN_HUGE_POPTRIE: u8 = 1 << 7;

/// The mask of the bits of a node up to and including number `bit`, which is below 64.
#[inline(always)]
#[must_use]
pub const fn mask_through_bit(bit: u64) -> u64 {
    u64::MAX >> (63 - bit)
}

/// A verdict as the word of a leaf.
#[inline(always)]
#[must_use]
pub const fn encode_leaf(verdict: Verdict) -> u64 {
    let [a, b] = verdict.policy_id.to_ne_bytes();
    let [c, d, e, f] = verdict.rule_index.to_ne_bytes();
    u64::from_ne_bytes([verdict.reason_code, verdict.flags, a, b, c, d, e, f])
}

/// The verdict that a leaf's word holds.
#[inline(always)]
#[must_use]
pub const fn decode_leaf(word: u64) -> Verdict {
    let [reason, flags, a, b, c, d, e, f] = word.to_ne_bytes();
    Verdict {
        reason_code: reason,
        flags,
        policy_id: u16::from_ne_bytes([a, b]),
        rule_index: u32::from_ne_bytes([c, d, e, f]),
    }
}
