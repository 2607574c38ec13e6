//! The LPM tries, which hold the prefixes of policies that are not in the table memory.

use std::{collections::HashSet, os::fd::AsFd as _, path::Path};

use anyhow::{Context as _, Result};
use aya::{
    Pod,
    maps::{
        MapData,
        lpm_trie::{Key, LpmTrie},
    },
};
use policy_common::{
    bpf_names::{POLICY_TRIE_V4, POLICY_TRIE_V6},
    policy_table::{self, TRIE_POLICY_ID_BITS, TriePrefixV4, TriePrefixV6},
    verdict::Verdict,
};

use crate::{
    dataplane::{
        features::LPM_TRIE_BATCH,
        maps::{
            bpf_syscall::{update_batch, update_element},
            pin_directory::PinDirectory,
            pinned_maps::{open_pinned_data, open_pinned_map},
        },
    },
    policy::compile::CompiledPolicy,
};

/// The two tries, which all policies share.
pub(crate) struct LpmTries {
    ipv4: FamilyTrie<TriePrefixV4>,
    ipv6: FamilyTrie<TriePrefixV6>,
}

/// The trie of one address family.
struct FamilyTrie<P: Pod> {
    trie: LpmTrie<MapData, P, u32>,
    /// The same map, for updates of many prefixes.
    data: MapData,
}

/// The keys of a policy.
#[derive(Default)]
pub(crate) struct TrieKeys {
    ipv4: Vec<Key<TriePrefixV4>>,
    ipv6: Vec<Key<TriePrefixV6>>,
}

impl LpmTries {
    /// Opens the pinned tries.
    pub(crate) fn open(pins: &PinDirectory) -> Result<Self> {
        Ok(Self {
            ipv4: FamilyTrie::open(&pins.map_path(POLICY_TRIE_V4))?,
            ipv6: FamilyTrie::open(&pins.map_path(POLICY_TRIE_V6))?,
        })
    }

    /// Inserts a policy's prefixes. On an error none of them is left.
    pub(crate) fn insert(&mut self, compiled: &CompiledPolicy, id: u16) -> Result<TrieKeys> {
        let keys = TrieKeys::of_policy(compiled, id);
        let v4: Option<Vec<u32>> = compiled.ipv4_entries.iter().map(leaf_of).collect();
        let v6: Option<Vec<u32>> = compiled.ipv6_entries.iter().map(leaf_of).collect();
        let leaves = v4.zip(v6).context("the policy has too many entries");
        let inserted = leaves.and_then(|(v4, v6)| {
            self.ipv4.insert_all(&keys.ipv4, &v4)?;
            self.ipv6.insert_all(&keys.ipv6, &v6)
        });
        if inserted.is_err() {
            self.remove(&keys);
        }
        inserted.map(|()| keys)
    }

    /// Removes a policy's prefixes, which no program may look up any more.
    pub(crate) fn remove(&mut self, keys: &TrieKeys) {
        self.ipv4.remove_all(&keys.ipv4);
        self.ipv6.remove_all(&keys.ipv6);
    }

    /// The keys of all policies but these.
    pub(crate) fn keys_of_others(&self, ids: &HashSet<u16>) -> TrieKeys {
        let is_other = |id: u32| !u16::try_from(u32::from_be(id)).is_ok_and(|id| ids.contains(&id));
        TrieKeys {
            ipv4: self.ipv4.keys_with(|prefix| is_other(prefix.policy_id)),
            ipv6: self.ipv6.keys_with(|prefix| is_other(prefix.policy_id)),
        }
    }
}

impl<P: Pod> FamilyTrie<P> {
    fn open(pin: &Path) -> Result<Self> {
        Ok(Self { trie: open_pinned_map(pin)?.try_into()?, data: open_pinned_data(pin)? })
    }

    fn insert_all(&self, keys: &[Key<P>], leaves: &[u32]) -> Result<()> {
        let inserted = if LPM_TRIE_BATCH.is_supported() {
            update_batch(self.data.fd().as_fd(), keys, leaves)
        } else {
            let mut entries = keys.iter().zip(leaves);
            entries.try_for_each(|(key, leaf)| update_element(self.data.fd().as_fd(), key, leaf))
        };
        inserted.context("cannot add the policy's prefixes to the LPM tries")
    }

    fn remove_all(&mut self, keys: &[Key<P>]) {
        // A prefix that is missing needs no removal.
        keys.iter().for_each(|key| drop(self.trie.remove(key)));
    }

    fn keys_with(&self, matches: impl Fn(P) -> bool) -> Vec<Key<P>> {
        self.trie.keys().filter_map(Result::ok).filter(|key| matches(key.data())).collect()
    }
}

impl TrieKeys {
    /// The keys of a policy's prefixes, in the order of its entries.
    pub(crate) fn of_policy(compiled: &CompiledPolicy, id: u16) -> Self {
        let policy_id = u32::from(id).to_be();
        let v4 = compiled.ipv4_entries.iter().map(|(net, _)| {
            let prefix = TriePrefixV4 { policy_id, address: net.network().octets() };
            trie_key(net.prefix_len(), prefix)
        });
        let v6 = compiled.ipv6_entries.iter().map(|(net, _)| {
            let prefix = TriePrefixV6 { policy_id, address: net.network().octets() };
            trie_key(net.prefix_len(), prefix)
        });
        Self { ipv4: v4.collect(), ipv6: v6.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ipv4.is_empty() && self.ipv6.is_empty()
    }
}

fn trie_key<P: Pod>(length: u8, prefix: P) -> Key<P> {
    Key::new(TRIE_POLICY_ID_BITS + u32::from(length), prefix)
}

fn leaf_of<N>((_, verdict): &(N, Verdict)) -> Option<u32> {
    policy_table::encode_leaf(*verdict)
}
