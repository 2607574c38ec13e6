//! What the property tests of parsers have in common: `cargo xtask fuzz` runs those in modules named
//! `fuzz` with many cases, `cargo test` with few.

use proptest::{prelude::*, sample::Index};

/// As many cases as PROPTEST_CASES says, or else these.
pub fn cases_or(usual: u32) -> ProptestConfig {
    let configured = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    // The smallest failing input is printed: it becomes a test of its own, not a seed in a file.
    let cases = configured.unwrap_or(usual);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Bytes made of these pieces, of what chance adds between them, and of some that chance changes.
pub fn hostile_bytes(
    pieces: &'static [&'static str],
    max_pieces: usize,
) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        20 => prop::sample::select(pieces).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..8),
    ];
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..3);
    (prop::collection::vec(piece, 1..max_pieces), changes).prop_map(|(pieces, changes)| {
        let mut bytes = pieces.concat();
        overwrite_bytes(&mut bytes, &changes);
        bytes
    })
}

/// A good text of which chance changes some bytes, and cuts or doubles a part.
pub fn mutated_bytes(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let part = (any::<Index>(), any::<Index>(), 0..3_usize);
    (changes, part).prop_map(move |(changes, (one, other, times))| {
        let mut bytes = text.as_bytes().to_vec();
        overwrite_bytes(&mut bytes, &changes);
        let (one, other) = (one.index(bytes.len()), other.index(bytes.len()));
        let part = one.min(other)..one.max(other).min(one.min(other) + 40);
        let repeated = bytes[part.clone()].repeat(times);
        bytes.splice(part, repeated);
        bytes
    })
}

fn overwrite_bytes(bytes: &mut [u8], changes: &[(Index, u8)]) {
    for (position, byte) in changes {
        if !bytes.is_empty() {
            let position = position.index(bytes.len());
            bytes[position] = *byte;
        }
    }
}
