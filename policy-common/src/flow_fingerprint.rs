//! Identifies a connection in the [flow tables](crate::flow) by 64 bits of a keyed hash.
//!
//! `SipHash` is a pseudorandom function: without the key nobody can find two connections with the
//! same fingerprint. Each use of a slot has its own key, so the next sandbox in the slot does not
//! inherit entries.

/// Number of 64-bit words that identify a connection.
pub const FLOW_WORDS: usize = 5;

/// The `SipHash`-1-3 of a connection's words. Never 0, which marks an unused entry.
#[inline(always)]
#[must_use]
pub const fn flow_fingerprint(key: [u64; 2], words: &[u64; FLOW_WORDS]) -> u64 {
    let hash = siphash::<1, 3>(key, words);
    if hash == 0 { 1 } else { hash }
}

/// `SipHash` with `C` rounds per word and `D` at the end, for a message of whole words
/// (little-endian).
#[inline(always)]
const fn siphash<const C: usize, const D: usize>(key: [u64; 2], words: &[u64; FLOW_WORDS]) -> u64 {
    let mut state = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    state = absorb::<C>(state, words[0]);
    state = absorb::<C>(state, words[1]);
    state = absorb::<C>(state, words[2]);
    state = absorb::<C>(state, words[3]);
    state = absorb::<C>(state, words[4]);
    // The last word holds the length of the message in its highest byte.
    state = absorb::<C>(state, (8 * FLOW_WORDS as u64) << 56);
    state[2] ^= 0xff;
    let [a, b, c, d] = rounds::<D>(state);
    a ^ b ^ c ^ d
}

#[inline(always)]
const fn absorb<const N: usize>(mut state: [u64; 4], word: u64) -> [u64; 4] {
    state[3] ^= word;
    state = rounds::<N>(state);
    state[0] ^= word;
    state
}

#[inline(always)]
const fn rounds<const N: usize>([mut a, mut b, mut c, mut d]: [u64; 4]) -> [u64; 4] {
    let mut round = 0;
    while round < N {
        a = a.wrapping_add(b);
        b = b.rotate_left(13) ^ a;
        a = a.rotate_left(32);
        c = c.wrapping_add(d);
        d = d.rotate_left(16) ^ c;
        a = a.wrapping_add(d);
        d = d.rotate_left(21) ^ a;
        c = c.wrapping_add(b);
        b = b.rotate_left(17) ^ c;
        c = c.rotate_left(32);
        round += 1;
    }
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::hash::{DefaultHasher, Hasher as _};

    use super::*;

    const WORDS: [u64; FLOW_WORDS] = [1, u64::MAX, 0x0123_4567_89ab_cdef, 0, 1 << 63];

    fn message() -> [u8; 8 * FLOW_WORDS] {
        let mut bytes = [0; 8 * FLOW_WORDS];
        for (place, word) in bytes.chunks_exact_mut(8).zip(WORDS) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn it_is_siphash() {
        // The standard library's hash map uses SipHash-1-3, here with a key of zeros.
        let mut hasher = DefaultHasher::new();
        hasher.write(&message());
        assert_eq!(flow_fingerprint([0, 0], &WORDS), hasher.finish());
        #[expect(deprecated, reason = "the only keyed SipHash of the standard library")]
        let mut hasher = std::hash::SipHasher::new_with_keys(3, u64::MAX - 5);
        hasher.write(&message());
        assert_eq!(siphash::<2, 4>([3, u64::MAX - 5], &WORDS), hasher.finish());
    }
}
