use ipnet::{Ipv4Net, Ipv6Net};
use policy_common::policy_table::{TableWords, find_leaf};
use proptest::prelude::*;

use super::*;
use crate::policy::{ALL_TRAFFIC, Floor, NetworkConfig, Policy, PolicyDefaults, compile_policy};

/// A block that lies behind other words, as in the kernel.
struct DisplacedBlock<'a>(&'a [u32]);

const BEFORE: u32 = 48;

impl TableWords for DisplacedBlock<'_> {
    fn word(&self, index: u32) -> u32 {
        self.0.word(index - BEFORE)
    }

    fn pair(&self, index: u32) -> u64 {
        assert!(index.is_multiple_of(2));
        self.0.pair(index - BEFORE)
    }
}

/// The kernel programs' lookups, which have to agree.
fn lookup_rule(block: &[u32], root: u32, address: u128) -> u32 {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).expect("64 bits");
    let (high, low) = (half(address >> 64), half(address));
    let (words, root) = (DisplacedBlock(block), block[root as usize]);
    let leaf = find_leaf::<true>(&words, BEFORE, root, high, low);
    let without_rule = find_leaf::<false>(&words, BEFORE, root, high, low);
    assert_eq!(leaf & 0xff, without_rule & 0xff);
    policy_table::decode_leaf(leaf, 0).rule_index
}

fn verdict(rule_index: u32) -> Verdict {
    let reason_code = [4, 6, 25, 26][rule_index as usize % 4];
    Verdict { reason_code, flags: 0, policy_id: 0, rule_index }
}

fn mask_prefix(address: u128, length: u8) -> u128 {
    if length == 0 { 0 } else { address & (u128::MAX << (128 - length)) }
}

fn longest_match(prefixes: &[(u128, u8)], address: u128) -> u32 {
    let matching = prefixes
        .iter()
        .enumerate()
        .filter(|(_, (network, length))| mask_prefix(address, *length) == *network);
    let longest = matching.max_by_key(|(_, (_, length))| *length).expect("a /0").0;
    u32::try_from(longest).expect("few")
}

fn compiled_policy(v4: &[(u128, u8)], v6: &[(u128, u8)]) -> CompiledPolicy {
    let mut ipv4_entries: Vec<_> = (0..)
        .zip(v4)
        .map(|(rule, (network, length))| {
            let network = u32::try_from(network >> 96).expect("32 bits");
            (Ipv4Net::new(network.into(), *length).expect("a length"), verdict(rule))
        })
        .collect();
    let mut ipv6_entries: Vec<_> = (0..)
        .zip(v6)
        .map(|(rule, (network, length))| {
            (Ipv6Net::new((*network).into(), *length).expect("a length"), verdict(rule))
        })
        .collect();
    ipv4_entries.sort_unstable_by_key(|(net, _)| *net);
    ipv6_entries.sort_unstable_by_key(|(net, _)| *net);
    CompiledPolicy { ipv4_entries, ipv6_entries }
}

/// Distinct prefixes, /0 among them.
fn with_default(prefixes: Vec<(u128, u8)>) -> Vec<(u128, u8)> {
    let mut all = vec![(0, 0)];
    for (address, length) in prefixes {
        let prefix = (mask_prefix(address, length), length);
        if !all.contains(&prefix) {
            all.push(prefix);
        }
    }
    all
}

/// Prefixes concentrated in a few ranges, so that many are nested.
fn nested_prefixes(width: u8) -> impl Strategy<Value = Vec<(u128, u8)>> {
    let place = prop_oneof![Just(0), Just(u128::MAX), Just(0x2001_0db8_u128 << 96), any::<u128>()];
    let prefix =
        (place, any::<u128>(), 1..=width, 0..=width).prop_map(|(place, noise, length, near)| {
            let random_bits = noise & !mask_prefix(u128::MAX, near);
            (mask_prefix(place, near) | random_bits, length)
        });
    prop::collection::vec(prefix, 0..200)
}

/// The first and last address of each prefix, and their neighbours.
fn edges(prefixes: &[(u128, u8)], width: u8) -> Vec<u128> {
    let one = 1_u128 << (128 - width);
    let around = |(network, length): &(u128, u8)| {
        let last = network | !mask_prefix(u128::MAX, *length);
        [*network, last, network.wrapping_sub(one), last.wrapping_add(1)]
    };
    prefixes.iter().flat_map(around).collect()
}

proptest! {
    #[test]
    fn a_lookup_finds_the_longest_match(
        v4 in nested_prefixes(32),
        v6 in nested_prefixes(128),
        strays in prop::collection::vec(any::<u128>(), 20),
    ) {
        let (v4, v6) = (with_default(v4), with_default(v6));
        let block = build_block(&compiled_policy(&v4, &v6)).expect("a block");
        for address in edges(&v4, 32).into_iter().chain(strays.clone()) {
            let found = lookup_rule(&block, BLOCK_ROOT_V4, address >> 96 << 96);
            prop_assert_eq!(found, longest_match(&v4, address >> 96 << 96));
        }
        for address in edges(&v6, 128).into_iter().chain(strays) {
            prop_assert_eq!(lookup_rule(&block, BLOCK_ROOT_V6, address), longest_match(&v6, address));
        }
    }
}

#[test]
fn prefixes_of_every_length_are_found() {
    let nested = |width: u8| (0..=width).map(|length| (mask_prefix(u128::MAX, length), length));
    let (v4, v6): (Vec<_>, Vec<_>) = (nested(32).collect(), nested(128).collect());
    let block = build_block(&compiled_policy(&v4, &v6)).expect("a block");
    for length in 0..=128_u8 {
        let address = mask_prefix(u128::MAX, length);
        assert_eq!(lookup_rule(&block, BLOCK_ROOT_V6, address), u32::from(length));
        if length <= 32 {
            assert_eq!(lookup_rule(&block, BLOCK_ROOT_V4, address), u32::from(length));
        }
    }
}

#[test]
fn without_an_entry_for_all_addresses_there_is_no_verdict() {
    let empty = CompiledPolicy { ipv4_entries: Vec::new(), ipv6_entries: Vec::new() };
    let block = build_block(&empty).expect("a block");
    assert_eq!(lookup_rule(&block, BLOCK_ROOT_V4, 0), 0);
    let leaf = find_leaf::<true>(&block.as_slice(), 0, block[BLOCK_ROOT_V4 as usize], 0, 0);
    assert_eq!(policy_table::leaf_reason_code(leaf), 0);
}

#[test]
fn small_policies_take_a_few_kilobytes() {
    let floor = Floor::default();
    let network = NetworkConfig {
        allow_out: Some(
            ["1.1.1.1", "8.8.8.0/24", "140.82.112.0/20", "185.199.108.0/22", "2606:50c0::/32"]
                .map(str::to_owned)
                .to_vec(),
        ),
        deny_out: Some(vec![ALL_TRAFFIC.to_owned()]),
        ..NetworkConfig::default()
    };
    let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor).expect("valid");
    let block = build_block(&compile_policy(&policy, &floor)).expect("a block");
    assert!(block.len() * 4 < 16 * 1024, "{} bytes", block.len() * 4);
}
