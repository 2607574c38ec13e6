//! A compiled policy as kernel maps: a trie per address family. For a family with many prefixes it
//! has a poptrie, and the trie's single entry refers to that.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Pod,
    maps::{MapData, lpm_trie::Key},
};
use aya_obj::generated::{
    BPF_F_NO_PREALLOC,
    bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LPM_TRIE},
};
use policy_common::{
    poptrie::{
        HUGE_POPTRIE_WORDS, LARGE_POPTRIE_WORDS, MAX_LPM_TRIE_PREFIXES, VERDICT_IN_HUGE_POPTRIE,
        VERDICT_IN_LARGE_POPTRIE,
    },
    verdict::{NO_RULE, Verdict},
};

use crate::{
    dataplane::{
        features::{HUGE_MAP_VALUES, LPM_TRIE_BATCH},
        maps::{
            batch_update::update_elements,
            bpf_syscall::update_array_element,
            poptrie_builder::{self, PrefixVerdict},
        },
    },
    policy::compile::CompiledPolicy,
};

/// Size class of a poptrie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PoptrieClass {
    /// `LARGE_V4`, `LARGE_V6`.
    Large,
    /// `HUGE_V4`, `HUGE_V6`.
    Huge,
}

impl PoptrieClass {
    /// The classes that this kernel supports.
    fn supported() -> &'static [Self] {
        if HUGE_MAP_VALUES.is_supported() { &[Self::Large, Self::Huge] } else { &[Self::Large] }
    }

    fn block_words(self) -> usize {
        match self {
            Self::Large => LARGE_POPTRIE_WORDS,
            Self::Huge => HUGE_POPTRIE_WORDS,
        }
    }

    fn verdict_flag(self) -> u8 {
        match self {
            Self::Large => VERDICT_IN_LARGE_POPTRIE,
            Self::Huge => VERDICT_IN_HUGE_POPTRIE,
        }
    }
}

/// The maps of one address family. Each handle is a file descriptor.
pub(crate) struct FamilyMaps {
    lpm_trie: MapData,
    poptrie: Option<(PoptrieClass, MapData)>,
}

/// The kernel's IDs of the maps of one family. 0 means no poptrie, because IDs start at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct FamilyMapIds {
    lpm_trie_id: u32,
    large_poptrie_id: u32,
    huge_poptrie_id: u32,
}

impl FamilyMaps {
    /// The file descriptor of the trie.
    pub(crate) fn lpm_trie_fd(&self) -> BorrowedFd<'_> {
        self.lpm_trie.fd().as_fd()
    }

    /// The file descriptor of the poptrie, if it is of this class.
    pub(crate) fn poptrie_fd(&self, class: PoptrieClass) -> Option<BorrowedFd<'_>> {
        self.poptrie.as_ref().filter(|(own, _)| *own == class).map(|(_, map)| map.fd().as_fd())
    }

    /// The kernel's IDs of the maps.
    pub(crate) fn map_ids(&self) -> Result<FamilyMapIds> {
        let mut ids =
            FamilyMapIds { lpm_trie_id: self.lpm_trie.info()?.id(), ..FamilyMapIds::default() };
        match &self.poptrie {
            Some((PoptrieClass::Large, map)) => ids.large_poptrie_id = map.info()?.id(),
            Some((PoptrieClass::Huge, map)) => ids.huge_poptrie_id = map.info()?.id(),
            None => {}
        }
        Ok(ids)
    }

    /// Opens the maps with these IDs, if they still exist.
    pub(crate) fn open_by_ids(ids: FamilyMapIds) -> Result<Self> {
        let table = match ids {
            FamilyMapIds { large_poptrie_id: 0, huge_poptrie_id: 0, .. } => None,
            FamilyMapIds { large_poptrie_id: 0, huge_poptrie_id: huge, .. } => {
                Some((PoptrieClass::Huge, MapData::from_id(huge)?))
            }
            FamilyMapIds { large_poptrie_id: large, .. } => {
                Some((PoptrieClass::Large, MapData::from_id(large)?))
            }
        };
        Ok(Self { lpm_trie: MapData::from_id(ids.lpm_trie_id)?, poptrie: table })
    }

    fn create_maps<A: Pod>(
        entries: Vec<PrefixVerdict>,
        key: impl Fn(&PrefixVerdict) -> Key<A>,
    ) -> Result<Self> {
        let table = if entries.len() > MAX_LPM_TRIE_PREFIXES {
            create_smallest_poptrie(&entries)?
        } else {
            None
        };
        let Some((class, map)) = table else {
            let keys: Vec<_> = entries.iter().map(key).collect();
            let verdicts: Vec<_> = entries.iter().map(|entry| entry.verdict).collect();
            return Ok(Self { lpm_trie: create_lpm_trie(&keys, &verdicts)?, poptrie: None });
        };
        // Reason 0 drops the packet if the poptrie is missing.
        let verdict = Verdict {
            reason_code: 0,
            flags: class.verdict_flag(),
            policy_id: 0,
            rule_index: NO_RULE,
        };
        let all = key(&PrefixVerdict { network: 0, prefix_length: 0, verdict });
        Ok(Self { lpm_trie: create_lpm_trie(&[all], &[verdict])?, poptrie: Some((class, map)) })
    }
}

/// A policy as kernel maps.
pub(crate) struct PolicyImage {
    /// IPv4.
    pub ipv4_maps: FamilyMaps,
    /// IPv6.
    pub ipv6_maps: FamilyMaps,
}

impl PolicyImage {
    /// Creates and fills maps. Every verdict carries the policy's ID.
    pub(crate) fn create_maps(compiled: &CompiledPolicy, policy: u16) -> Result<Self> {
        let numbered = |verdict: &Verdict| Verdict { policy_id: policy, ..*verdict };
        let v4 = compiled.ipv4_entries.iter().map(|(prefix, verdict)| PrefixVerdict {
            network: u128::from(u32::from(prefix.network())) << 96,
            prefix_length: prefix.prefix_len().into(),
            verdict: numbered(verdict),
        });
        let v6 = compiled.ipv6_entries.iter().map(|(prefix, verdict)| PrefixVerdict {
            network: prefix.network().into(),
            prefix_length: prefix.prefix_len().into(),
            verdict: numbered(verdict),
        });
        let key_v4 = |entry: &PrefixVerdict| {
            let [a, b, c, d, ..] = entry.network.to_be_bytes();
            Key::new(entry.prefix_length, [a, b, c, d])
        };
        let key_v6 =
            |entry: &PrefixVerdict| Key::new(entry.prefix_length, entry.network.to_be_bytes());
        Ok(Self {
            ipv4_maps: FamilyMaps::create_maps(v4.collect(), key_v4)?,
            ipv6_maps: FamilyMaps::create_maps(v6.collect(), key_v6)?,
        })
    }
}

fn create_lpm_trie<A: Pod>(keys: &[Key<A>], verdicts: &[Verdict]) -> Result<MapData> {
    let entries = u32::try_from(keys.len()).context("too many prefixes")?;
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_LPM_TRIE as u32,
        u32::try_from(size_of::<Key<A>>())?,
        u32::try_from(size_of::<Verdict>())?,
        entries.max(1),
        BPF_F_NO_PREALLOC, // LPM tries require it
    );
    let trie = MapData::create(shape, "policy_trie", None)
        .with_context(|| format!("cannot make a trie for {entries} prefixes"))?;
    update_elements(&LPM_TRIE_BATCH, trie.fd().as_fd(), keys, verdicts)
        .with_context(|| format!("cannot fill a trie with {entries} prefixes"))?;
    Ok(trie)
}

/// Creates a poptrie in the smallest class that it fits in. `None` if it fits in none.
fn create_smallest_poptrie(entries: &[PrefixVerdict]) -> Result<Option<(PoptrieClass, MapData)>> {
    let mut words = poptrie_builder::build_poptrie(entries.to_vec());
    let Some(class) =
        PoptrieClass::supported().iter().copied().find(|class| words.len() <= class.block_words())
    else {
        return Ok(None);
    };
    words.resize(class.block_words(), 0);
    let Ok(size) = u32::try_from(class.block_words() * size_of::<u64>()) else {
        bail!("a block of {} words is too large", class.block_words());
    };
    let shape = aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, 4, size, 1, 0);
    let map = MapData::create(shape, "policy_table", None)
        .with_context(|| format!("cannot make a table of {size} bytes"))?;
    update_array_element(map.fd().as_fd(), 0, &words).context("cannot fill a table")?;
    Ok(Some((class, map)))
}
