//! Large policies: a compressed multibit trie in one flat memory block.
//!
//! This is a Poptrie (Asai and Ohara, SIGCOMM 2015). The first 16 bits of an address index a root.
//! Each node then consumes 6 bits and finds its child or leaf by counting bits. The kernel's LPM
//! trie follows one pointer per bit; a Poptrie reads one or two cache lines per 6 bits.
//!
//! A block is a single value of an array map, so after one map lookup all accesses are plain loads.
//! Blocks come in size classes, because all inner maps of an array of maps have the same size.
//!
//! References count words of 8 bytes from the start of the block:
//!
//! | part | words |
//! |---|---|
//! | root | 2¹⁶ references of 32 bits |
//! | node | 3: children (bit set: a node), leaf starts (bit set: a new leaf), first child and first leaf (low and high half) |
//! | leaf | 1: a [`Verdict`] |

use crate::verdict::Verdict;

/// Number of bits that the root consumes.
pub const POPTRIE_ROOT_BITS: u32 = 16;
/// Number of bits that a node consumes.
pub const POPTRIE_STRIDE_BITS: u32 = 6;
/// Size of the root in words.
pub const POPTRIE_ROOT_WORDS: usize = (1 << POPTRIE_ROOT_BITS) / 2;
/// Size of a node in words.
pub const POPTRIE_NODE_WORDS: u32 = 3;
/// Marks a reference to a leaf. References to nodes do not have this bit.
pub const POPTRIE_LEAF_BIT: u32 = 1 << 31;

/// Size of a block of the large class in words: 4 MiB, enough for about 100 000 prefixes.
pub const LARGE_POPTRIE_WORDS: usize = 4 * 1024 * 1024 / 8;
/// Size of a block of the huge class in words: 32 MiB.
pub const HUGE_POPTRIE_WORDS: usize = 32 * 1024 * 1024 / 8;

/// Policies with more prefixes of one family than this use a poptrie for that family.
pub const MAX_LPM_TRIE_PREFIXES: usize = 4_096;

/// [`Verdict::flags`] of a trie's only entry: the verdicts are in a poptrie of the large class.
pub const VERDICT_IN_LARGE_POPTRIE: u8 = 1 << 6;
/// [`Verdict::flags`] of a trie's only entry: the verdicts are in a poptrie of the huge class.
pub const VERDICT_IN_HUGE_POPTRIE: u8 = 1 << 7;

/// A mask of the bits 0 to `bit`, inclusive. `bit` must be below 64.
#[inline(always)]
#[must_use]
pub const fn mask_through_bit(bit: u64) -> u64 {
    u64::MAX >> (63 - bit)
}

/// Encodes a verdict as a leaf word.
#[inline(always)]
#[must_use]
pub const fn encode_leaf(verdict: Verdict) -> u64 {
    let [a, b] = verdict.policy_id.to_ne_bytes();
    let [c, d, e, f] = verdict.rule_index.to_ne_bytes();
    u64::from_ne_bytes([verdict.reason_code, verdict.flags, a, b, c, d, e, f])
}

/// Decodes a leaf word.
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
