//! Looks up addresses in the poptrie of a large policy. `policy_common::poptrie` documents the
//! layout.

use policy_common::poptrie::{
    self, POPTRIE_NODE_WORDS, POPTRIE_ROOT_BITS, POPTRIE_STRIDE_BITS, mask_through_bit,
};

const LEAF_BIT: u64 = poptrie::POPTRIE_LEAF_BIT as u64;

/// The remaining bits of an address, left-aligned. Each step consumes some.
struct AddressBits {
    high: u64,
    low: u64,
}

impl AddressBits {
    /// Consumes the next bits and returns them as a number.
    #[inline(always)]
    fn take_bits(&mut self, count: u32) -> u64 {
        let taken = self.high >> (64 - count);
        self.high = self.high << count | self.low >> (64 - count);
        self.low <<= count;
        taken
    }
}

/// The leaf of an IPv4 address.
#[inline(always)]
pub(crate) fn lookup_v4<const WORDS: usize>(block: &[u64; WORDS], address: u32) -> Option<u64> {
    const STEPS: u32 = (32 - POPTRIE_ROOT_BITS).div_ceil(POPTRIE_STRIDE_BITS);
    search_poptrie::<WORDS, STEPS>(block, AddressBits { high: u64::from(address) << 32, low: 0 })
}

/// The leaf of an IPv6 address, passed as two halves in host byte order.
#[inline(always)]
pub(crate) fn lookup_v6<const WORDS: usize>(
    block: &[u64; WORDS],
    high: u64,
    low: u64,
) -> Option<u64> {
    const STEPS: u32 = (128 - POPTRIE_ROOT_BITS).div_ceil(POPTRIE_STRIDE_BITS);
    search_poptrie::<WORDS, STEPS>(block, AddressBits { high, low })
}

/// Follows at most STEPS nodes from the root to a leaf. `None` if the block is corrupt.
#[inline(always)]
fn search_poptrie<const WORDS: usize, const STEPS: u32>(
    block: &[u64; WORDS],
    mut bits: AddressBits,
) -> Option<u64> {
    let root_index = bits.take_bits(POPTRIE_ROOT_BITS);
    let pair = word_at(block, root_index / 2);
    let mut reference =
        if root_index.is_multiple_of(2) { first_half(pair) } else { second_half(pair) };
    for _ in 0..STEPS {
        if reference & LEAF_BIT != 0 {
            break;
        }
        let bit = bits.take_bits(POPTRIE_STRIDE_BITS);
        let nodes = word_at(block, reference);
        reference = if nodes >> bit & 1 != 0 {
            let before = count_ones_in(nodes & mask_through_bit(bit)) - 1;
            first_half(word_at(block, reference + 2)) + u64::from(POPTRIE_NODE_WORDS) * before
        } else {
            let before = count_ones_in(word_at(block, reference + 1) & mask_through_bit(bit)) - 1;
            LEAF_BIT | (second_half(word_at(block, reference + 2)) + before)
        };
    }
    (reference & LEAF_BIT != 0).then(|| word_at(block, reference))
}

/// Reads a word. The mask, which also removes the leaf bit, lets the verifier derive the bounds.
/// The number of words in a block is a power of two.
#[inline(always)]
fn word_at<const WORDS: usize>(block: &[u64; WORDS], at: u64) -> u64 {
    const { assert!(WORDS.is_power_of_two()) };
    #[expect(clippy::cast_possible_truncation, reason = "usize has 64 bits on this target")]
    let at = at as usize;
    block[at & (WORDS - 1)]
}

#[inline(always)]
fn count_ones_in(word: u64) -> u64 {
    u64::from(word.count_ones())
}

/// The half of a word at the lower memory address.
#[inline(always)]
fn first_half(word: u64) -> u64 {
    let [a, b, c, d, ..] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]).into()
}

#[inline(always)]
fn second_half(word: u64) -> u64 {
    let [.., a, b, c, d] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]).into()
}
