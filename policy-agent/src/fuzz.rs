//! Shared parts of the parsers' property tests. `cargo xtask fuzz` runs the tests in modules named
//! `fuzz` with many cases, `cargo test` with few.

use proptest::{prelude::*, sample::Index};

/// The number of cases in PROPTEST_CASES, or else `default_cases`.
pub(crate) fn cases_or(default_cases: u32) -> ProptestConfig {
    let configured = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    // Failures are not persisted: the smallest failing input is printed, and becomes a test of its
    // own.
    let cases = configured.unwrap_or(default_cases);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Byte strings made of `pieces` and random bytes, with a few bytes changed at random.
pub(crate) fn hostile_bytes(
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

/// Mutations of a valid text: random bytes are changed, and a part is removed or repeated.
pub(crate) fn mutated_bytes(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..4);
    let part = (any::<Index>(), any::<Index>(), 0..3_usize);
    (changes, part).prop_map(move |(changes, (start, end, times))| {
        let mut bytes = text.as_bytes().to_vec();
        overwrite_bytes(&mut bytes, &changes);
        let (start, end) = (start.index(bytes.len()), end.index(bytes.len()));
        let part = start.min(end)..start.max(end).min(start.min(end) + 40);
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
