//! The kernel's image of a compiled policy: a trie per address family, and for a family with many
//! prefixes a flat table beside it, which the trie's single entry points to.

use std::os::fd::{AsFd as _, BorrowedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Pod,
    maps::{MapData, lpm_trie::Key},
};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_LPM_TRIE};
use policy_common::{
    policy::{NO_RULE, Verdict},
    table::{HUGE, HUGE_WORDS, LARGE, LARGE_WORDS, MIN_PREFIXES},
};

use super::{
    bpf::{update_bytes, update_many},
    huge,
    table::{self, Entry},
};
use crate::policy::compile::Compiled;

/// `BPF_F_NO_PREALLOC`, which tries must have.
const NO_PREALLOC: u32 = 1;

/// Size class of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// `LARGE_V4`, `LARGE_V6`.
    Large,
    /// `HUGE_V4`, `HUGE_V6`.
    Huge,
}

impl Class {
    /// Those that this kernel has.
    fn all() -> &'static [Self] {
        if *huge::SUPPORTED == 0 { &[Self::Large] } else { &[Self::Large, Self::Huge] }
    }

    fn words(self) -> usize {
        match self {
            Self::Large => LARGE_WORDS,
            Self::Huge => HUGE_WORDS,
        }
    }

    fn flag(self) -> u8 {
        match self {
            Self::Large => LARGE,
            Self::Huge => HUGE,
        }
    }
}

/// The maps of one address family: live handles, each a file descriptor.
pub struct Family {
    trie: MapData,
    table: Option<(Class, MapData)>,
}

/// The kernel's names for the maps of a family; no table is 0, since ids begin at 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Ids {
    trie: u32,
    large: u32,
    huge: u32,
}

impl Family {
    /// The trie.
    pub fn trie(&self) -> BorrowedFd<'_> {
        self.trie.fd().as_fd()
    }

    /// The table, if it is of this class.
    pub fn table(&self, class: Class) -> Option<BorrowedFd<'_>> {
        self.table.as_ref().filter(|(own, _)| *own == class).map(|(_, map)| map.fd().as_fd())
    }

    /// The kernel's names for the maps.
    pub fn ids(&self) -> Result<Ids> {
        let mut ids = Ids { trie: self.trie.info()?.id(), ..Ids::default() };
        match &self.table {
            Some((Class::Large, map)) => ids.large = map.info()?.id(),
            Some((Class::Huge, map)) => ids.huge = map.info()?.id(),
            None => {}
        }
        Ok(ids)
    }

    /// The maps with these names, if they still exist.
    pub fn from_ids(ids: Ids) -> Result<Self> {
        let table = match ids {
            Ids { large: 0, huge: 0, .. } => None,
            Ids { large: 0, huge, .. } => Some((Class::Huge, MapData::from_id(huge)?)),
            Ids { large, .. } => Some((Class::Large, MapData::from_id(large)?)),
        };
        Ok(Self { trie: MapData::from_id(ids.trie)?, table })
    }

    fn build<A: Pod>(entries: Vec<Entry>, key: impl Fn(&Entry) -> Key<A>) -> Result<Self> {
        let table = if entries.len() > MIN_PREFIXES { fitting(&entries)? } else { None };
        let Some((class, map)) = table else {
            let keys: Vec<_> = entries.iter().map(key).collect();
            let verdicts: Vec<_> = entries.iter().map(|entry| entry.verdict).collect();
            return Ok(Self { trie: trie(&keys, &verdicts)?, table: None });
        };
        // Reason 0 drops: if the table were not there, so would the answer be.
        let verdict = Verdict { reason: 0, flags: class.flag(), policy: 0, rule: NO_RULE };
        let all = key(&Entry { network: 0, length: 0, verdict });
        Ok(Self { trie: trie(&[all], &[verdict])?, table: Some((class, map)) })
    }
}

/// A policy as the kernel holds it.
pub struct Image {
    /// IPv4.
    pub v4: Family,
    /// IPv6.
    pub v6: Family,
}

impl Image {
    /// Fills fresh maps; every verdict carries the policy's number.
    pub fn build(compiled: &Compiled, policy: u16) -> Result<Self> {
        let numbered = |verdict: &Verdict| Verdict { policy, ..*verdict };
        let v4 = compiled.v4.iter().map(|(prefix, verdict)| Entry {
            network: u128::from(u32::from(prefix.network())) << 96,
            length: prefix.prefix_len().into(),
            verdict: numbered(verdict),
        });
        let v6 = compiled.v6.iter().map(|(prefix, verdict)| Entry {
            network: prefix.network().into(),
            length: prefix.prefix_len().into(),
            verdict: numbered(verdict),
        });
        let key_v4 = |entry: &Entry| {
            let [a, b, c, d, ..] = entry.network.to_be_bytes();
            Key::new(entry.length, [a, b, c, d])
        };
        let key_v6 = |entry: &Entry| Key::new(entry.length, entry.network.to_be_bytes());
        Ok(Self {
            v4: Family::build(v4.collect(), key_v4)?,
            v6: Family::build(v6.collect(), key_v6)?,
        })
    }
}

fn trie<A: Pod>(keys: &[Key<A>], verdicts: &[Verdict]) -> Result<MapData> {
    let entries = u32::try_from(keys.len()).context("too many prefixes")?;
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_LPM_TRIE as u32,
        size_of::<Key<A>>() as u32,
        size_of::<Verdict>() as u32,
        entries.max(1),
        NO_PREALLOC,
    );
    let trie = MapData::create(shape, "policy_trie", None)
        .with_context(|| format!("cannot make a trie for {entries} prefixes"))?;
    update_many(trie.fd().as_fd(), keys, verdicts)
        .with_context(|| format!("cannot fill a trie with {entries} prefixes"))?;
    Ok(trie)
}

/// The table of the prefixes in the smallest class that holds it; `None` when none does.
fn fitting(entries: &[Entry]) -> Result<Option<(Class, MapData)>> {
    let mut words = table::build(entries.to_vec());
    let Some(class) = Class::all().iter().copied().find(|class| words.len() <= class.words())
    else {
        return Ok(None);
    };
    words.resize(class.words(), 0);
    let Ok(size) = u32::try_from(class.words() * size_of::<u64>()) else {
        bail!("a block of {} words is too large", class.words());
    };
    let shape = aya_obj::Map::new_from_params(BPF_MAP_TYPE_ARRAY as u32, 4, size, 1, 0);
    let map = MapData::create(shape, "policy_table", None)
        .with_context(|| format!("cannot make a table of {size} bytes"))?;
    update_bytes(map.fd().as_fd(), 0, &words).context("cannot fill a table")?;
    Ok(Some((class, map)))
}
