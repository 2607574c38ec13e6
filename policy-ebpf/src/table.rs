//! Looks an address up in the flat table of a large policy; the layout is described in
//! `policy_common::table`.

use policy_common::table::{self, NODE_WORDS, ROOT_BITS, STRIDE, up_to};

const LEAF: u64 = table::LEAF as u64;

/// The bits of an address from the top; each step takes some off.
struct Bits {
    high: u64,
    low: u64,
}

impl Bits {
    /// The next bits, as a number.
    #[inline(always)]
    fn take(&mut self, count: u32) -> u64 {
        let taken = self.high >> (64 - count);
        self.high = self.high << count | self.low >> (64 - count);
        self.low <<= count;
        taken
    }
}

/// The leaf of an IPv4 address.
#[inline(always)]
pub fn v4<const WORDS: usize>(block: &[u64; WORDS], address: u32) -> Option<u64> {
    const STEPS: u32 = (32 - ROOT_BITS).div_ceil(STRIDE);
    search::<WORDS, STEPS>(block, Bits { high: u64::from(address) << 32, low: 0 })
}

/// The leaf of an IPv6 address, given as the number of its halves.
#[inline(always)]
pub fn v6<const WORDS: usize>(block: &[u64; WORDS], high: u64, low: u64) -> Option<u64> {
    const STEPS: u32 = (128 - ROOT_BITS).div_ceil(STRIDE);
    search::<WORDS, STEPS>(block, Bits { high, low })
}

/// From the root through at most STEPS nodes to a leaf. A table that leads elsewhere is broken.
#[inline(always)]
fn search<const WORDS: usize, const STEPS: u32>(
    block: &[u64; WORDS],
    mut bits: Bits,
) -> Option<u64> {
    let slot = bits.take(ROOT_BITS);
    let pair = word(block, slot / 2);
    let mut reference = if slot.is_multiple_of(2) { first(pair) } else { second(pair) };
    for _ in 0..STEPS {
        if reference & LEAF != 0 {
            break;
        }
        let bit = bits.take(STRIDE);
        let nodes = word(block, reference);
        reference = if nodes >> bit & 1 != 0 {
            let before = count(nodes & up_to(bit)) - 1;
            first(word(block, reference + 2)) + u64::from(NODE_WORDS) * before
        } else {
            let before = count(word(block, reference + 1) & up_to(bit)) - 1;
            LEAF | (second(word(block, reference + 2)) + before)
        };
    }
    (reference & LEAF != 0).then(|| word(block, reference))
}

/// The word with this number. The mask, which takes off the mark of a leaf, too, is what the
/// verifier knows the bounds by; a block has a power of two of words.
#[inline(always)]
fn word<const WORDS: usize>(block: &[u64; WORDS], at: u64) -> u64 {
    const { assert!(WORDS.is_power_of_two()) };
    block[at as usize & (WORDS - 1)]
}

#[inline(always)]
fn count(word: u64) -> u64 {
    u64::from(word.count_ones())
}

/// The half of a word that comes first in memory.
#[inline(always)]
fn first(word: u64) -> u64 {
    let [a, b, c, d, ..] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]).into()
}

#[inline(always)]
fn second(word: u64) -> u64 {
    let [.., a, b, c, d] = word.to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d]).into()
}
