//! The tables of compiled policies: one block of 32-bit words per policy, in the single value of
//! [`POLICY_TABLES`](crate::bpf_names::POLICY_TABLES).
//!
//! Each family has a level-compressed trie (Nilsson and Karlsson, 1999) with leaves pushed down: a
//! branch is indexed by the next 1 to 16 bits of the address, and a path compares up to 63 bits at
//! once. Where few prefixes are left, a [range node](crate::range_node) holds them all. A lookup ends
//! at a leaf, which is the verdict, after at most [`MAX_LOOKUP_STEPS`] nodes.
//!
//! A block starts with its header, [`BLOCK_HEADER_WORDS`] words. References are word offsets from
//! the start of the block, so that a block can lie anywhere:
//!
//! | bits | leaf | branch | path | in the LPM tries | ranges |
//! |---|---|---|---|---|---|
//! | 31 | 1 | 0 | 0 | 0 | 0 |
//! | 26 to 30 | | number of bits, 1 to 16 | 0 | 17 | 18 narrow, 19 wide, 20 small |
//! | 0 to 25 | | offset of its 2ⁿ references | offset of its words | 0 | offset of the node |
//!
//! | part | words |
//! |---|---|
//! | leaf | in the reference: reason code (bits 0 to 5), flags (6, 7), rule index (8 to 29) |
//! | path | number of bits; the bits, left-aligned (high half, low half); the leaf of addresses with other bits; the reference for those with these |
//!
//! The reference 0 leads nowhere: there is no policy.

use crate::{
    impl_pod,
    range_node::{
        NARROW_RANGES, Narrow, RangeShape, SMALL_WIDE_RANGES, SmallWide, Wide, find_leaf_in_ranges,
    },
    verdict::{NO_RULE, Verdict},
};

/// Size of the memory for all tables in words: 32 MiB.
pub const TABLE_MEMORY_WORDS: usize = 1 << 23;
/// The same on kernels that limit a map value to 4 MiB.
pub const SMALL_TABLE_MEMORY_WORDS: usize = 1 << 20;
/// Alignment of blocks and branches in words: one cache line.
pub const BLOCK_ALIGNMENT_WORDS: u32 = 16;

/// Size of a block's header in words.
pub const BLOCK_HEADER_WORDS: u32 = 16;
/// Offset in the header: size of the block in words.
pub const BLOCK_LENGTH: u32 = 0;
/// Offset in the header: [`Verdict::policy_id`] of all verdicts.
pub const BLOCK_POLICY_ID: u32 = 1;
/// Offset in the header: reference of the IPv4 trie.
pub const BLOCK_ROOT_V4: u32 = 2;
/// Offset in the header: reference of the IPv6 trie.
pub const BLOCK_ROOT_V6: u32 = 3;
/// Offset in the header: the compiled policy's digest, 4 words. Only the agent reads it.
pub const BLOCK_DIGEST: u32 = 4;

/// Marks a reference that is a leaf.
pub const LEAF_BIT: u32 = 1 << 31;
/// Position of a reference's kind.
const KIND_SHIFT: u32 = 26;
/// The kind of a path.
const KIND_PATH: u32 = 0;
/// The kind of a reference to the LPM tries: the policy did not fit into a block.
const KIND_LPM_TRIE: u32 = 17;
/// The kinds of range nodes.
const KIND_NARROW_RANGES: u32 = 18;
const KIND_WIDE_RANGES: u32 = 19;
const KIND_SMALL_WIDE_RANGES: u32 = 20;
/// The part of a reference that is an offset.
const OFFSET_MASK: u32 = (1 << KIND_SHIFT) - 1;

/// Maximum number of bits that a branch is indexed by.
pub const MAX_BRANCH_BITS: u32 = 16;
/// Minimum number of bits of a branch and of a path, except at the end of an address. It bounds the
/// number of steps.
pub const MIN_STEP_BITS: u32 = 4;
/// Maximum number of bits that a path compares.
pub const MAX_PATH_BITS: u32 = 63;
/// Size of a path in words.
pub const PATH_WORDS: u32 = 5;
/// Maximum number of nodes on the way to a leaf: all bits of an IPv6 address in the smallest steps.
pub const MAX_LOOKUP_STEPS: u32 = 128 / MIN_STEP_BITS;

/// [`NO_RULE`] in a leaf.
const LEAF_NO_RULE: u32 = (1 << 22) - 1;

/// The reference to policies in the LPM tries.
pub const LPM_TRIE_REFERENCE: u32 = KIND_LPM_TRIE << KIND_SHIFT;

/// The reference to a branch of `2^bits` references at this offset.
#[must_use]
pub const fn branch_reference(bits: u32, offset: u32) -> u32 {
    bits << KIND_SHIFT | offset
}

/// The reference to a path at this offset.
#[must_use]
pub const fn path_reference(offset: u32) -> u32 {
    KIND_PATH << KIND_SHIFT | offset
}

/// The reference to a range node of this shape at this offset.
#[must_use]
pub fn ranges_reference(shape: RangeShape, offset: u32) -> u32 {
    let kind = match shape {
        NARROW_RANGES => KIND_NARROW_RANGES,
        SMALL_WIDE_RANGES => KIND_SMALL_WIDE_RANGES,
        _ => KIND_WIDE_RANGES,
    };
    kind << KIND_SHIFT | offset
}

/// Maximum number of prefixes of one family in the LPM tries, of all policies together.
pub const MAX_TRIE_PREFIXES: usize = 1 << 20;

/// The part of a [`POLICY_TRIE_V4`](crate::bpf_names::POLICY_TRIE_V4) key that is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TriePrefixV4 {
    /// [`Verdict::policy_id`] in network byte order.
    pub policy_id: u32,
    /// The address.
    pub address: [u8; 4],
}

/// The part of a [`POLICY_TRIE_V6`](crate::bpf_names::POLICY_TRIE_V6) key that is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct TriePrefixV6 {
    /// [`Verdict::policy_id`] in network byte order.
    pub policy_id: u32,
    /// The address.
    pub address: [u8; 16],
}

impl TriePrefixV4 {
    /// Size in bits.
    pub const BITS: u32 = 64;
}

impl TriePrefixV6 {
    /// Size in bits.
    pub const BITS: u32 = 160;
}

/// The number of bits of the policy's ID, which precede the address.
pub const TRIE_POLICY_ID_BITS: u32 = 32;

impl_pod!(TriePrefixV4, 8);
impl_pod!(TriePrefixV6, 20);

/// Encodes a verdict as a leaf, without the policy's ID. `None` if a field is too large.
#[must_use]
pub const fn encode_leaf(verdict: Verdict) -> Option<u32> {
    let rule = if verdict.rule_index == NO_RULE { LEAF_NO_RULE } else { verdict.rule_index };
    let fits = verdict.reason_code < 1 << 6 && verdict.flags < 1 << 2 && rule <= LEAF_NO_RULE;
    if !fits || (rule == LEAF_NO_RULE && verdict.rule_index != NO_RULE) {
        return None;
    }
    Some(LEAF_BIT | rule << 8 | (verdict.flags as u32) << 6 | verdict.reason_code as u32)
}

/// The reason code of a leaf. 0 if the reference is not a leaf.
#[inline(always)]
#[must_use]
pub const fn leaf_reason_code(leaf: u32) -> u8 {
    if leaf & LEAF_BIT == 0 { 0 } else { (leaf & 0x3f) as u8 }
}

/// [`Verdict::flags`] of a leaf.
#[inline(always)]
#[must_use]
pub const fn leaf_flags(leaf: u32) -> u8 {
    (leaf >> 6 & 3) as u8
}

/// Decodes a leaf. The reason code is 0 if the reference is not a leaf.
#[inline(always)]
#[must_use]
pub const fn decode_leaf(leaf: u32, policy_id: u16) -> Verdict {
    let rule = leaf >> 8 & LEAF_NO_RULE;
    Verdict {
        reason_code: leaf_reason_code(leaf),
        flags: leaf_flags(leaf),
        policy_id,
        rule_index: if rule == LEAF_NO_RULE { NO_RULE } else { rule },
    }
}

/// The memory that a lookup reads.
pub trait TableWords {
    /// The word at this index.
    fn word(&self, index: u32) -> u32;
    /// The two words from this index on, which is even. Their order does not matter.
    fn pair(&self, index: u32) -> u64;
}

/// Finds the leaf of an address in the block at `block`, starting from a root. The address is
/// left-aligned in `high` and `low`, in host byte order: an IPv4 address is in the upper half of
/// `high`. Unless `WHOLE`, the leaf may lack its rule.
///
/// Returns a reference that is not a leaf if the root is none, or [`LPM_TRIE_REFERENCE`].
#[inline(always)]
pub fn find_leaf<const WHOLE: bool>(
    words: &impl TableWords,
    block: u32,
    root: u32,
    mut high: u64,
    mut low: u64,
) -> u32 {
    if root == 0 || root == LPM_TRIE_REFERENCE {
        return root;
    }
    let mut reference = root;
    for _ in 0..MAX_LOOKUP_STEPS {
        if reference >= KIND_NARROW_RANGES << KIND_SHIFT {
            break; // a leaf, or a range node, which leads to one
        }
        let node = block.wrapping_add(reference & OFFSET_MASK);
        let kind = reference >> KIND_SHIFT;
        let bits;
        if kind == KIND_PATH {
            bits = words.word(node) & MAX_PATH_BITS;
            let path = u64::from(words.word(node.wrapping_add(1))) << 32
                | u64::from(words.word(node.wrapping_add(2)));
            if leading_bits(high ^ path, bits) != 0 {
                return words.word(node.wrapping_add(3));
            }
            reference = words.word(node.wrapping_add(4));
        } else {
            bits = kind;
            #[expect(clippy::cast_possible_truncation, reason = "at most 31 bits are left")]
            let index = leading_bits(high, bits) as u32;
            reference = words.word(node.wrapping_add(index));
        }
        high = high << bits | leading_bits(low, bits);
        low <<= bits;
    }
    if reference & LEAF_BIT != 0 {
        return reference;
    }
    let node = block.wrapping_add(reference & OFFSET_MASK);
    match reference >> KIND_SHIFT {
        KIND_NARROW_RANGES => find_leaf_in_ranges::<Narrow, WHOLE>(words, block, node, high),
        KIND_WIDE_RANGES => find_leaf_in_ranges::<Wide, WHOLE>(words, block, node, high),
        KIND_SMALL_WIDE_RANGES => find_leaf_in_ranges::<SmallWide, WHOLE>(words, block, node, high),
        _ => reference,
    }
}

/// The first `bits` bits of a word, right-aligned. `bits` is 1 to 63.
#[inline(always)]
const fn leading_bits(word: u64, bits: u32) -> u64 {
    word >> (64_u32.wrapping_sub(bits) & 63)
}

impl TableWords for &[u32] {
    fn word(&self, index: u32) -> u32 {
        self[index as usize]
    }

    fn pair(&self, index: u32) -> u64 {
        u64::from(self.word(index)) | u64::from(self.word(index + 1)) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_round_trip() {
        for rule_index in [0, 1, 99_999, LEAF_NO_RULE - 1, NO_RULE] {
            let verdict = Verdict { reason_code: 26, flags: 3, policy_id: 7, rule_index };
            let leaf = encode_leaf(verdict).expect("it fits");
            assert_eq!(decode_leaf(leaf, 7), verdict);
        }
    }

    #[test]
    fn what_does_not_fit_is_no_leaf() {
        let verdict = Verdict { reason_code: 1, flags: 0, policy_id: 0, rule_index: 0 };
        assert_eq!(encode_leaf(Verdict { reason_code: 64, ..verdict }), None);
        assert_eq!(encode_leaf(Verdict { flags: 4, ..verdict }), None);
        assert_eq!(encode_leaf(Verdict { rule_index: LEAF_NO_RULE, ..verdict }), None);
        assert_eq!(decode_leaf(0, 0).reason_code, 0);
    }
}
