//! The memory for tables, shared with the kernel programs: `POLICY_TABLES`, mapped.

use std::{path::Path, sync::atomic::Ordering};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use aya_obj::generated::{BPF_F_MMAPABLE, bpf_map_type::BPF_MAP_TYPE_ARRAY};
use policy_common::{
    bpf_names::POLICY_TABLES,
    policy_table::{
        BLOCK_DIGEST, BLOCK_LENGTH, BLOCK_POLICY_ID, BLOCK_ROOT_V4, LPM_TRIE_REFERENCE,
        SMALL_TABLE_MEMORY_WORDS, TABLE_MEMORY_WORDS,
    },
};

use crate::dataplane::{
    features::LARGE_MAP_VALUES,
    maps::{mapped_words::MappedWords, pin_directory::PinDirectory, pinned_maps::open_pinned_data},
};

/// The digest of a compiled policy.
pub type PolicyDigest = [u8; 16];

/// The memory for tables.
pub(crate) struct TableMemory {
    mapped: MappedWords,
}

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    /// Size of the block in words.
    pub length: u32,
    /// The policy's ID in verdicts.
    pub policy_id: u16,
    /// The compiled policy's digest.
    pub digest: PolicyDigest,
    /// Whether the policy's prefixes are in the LPM tries.
    pub is_in_tries: bool,
}

/// The size of the memory for tables on this kernel, in words. A power of two.
pub(crate) fn table_memory_words() -> usize {
    if LARGE_MAP_VALUES.is_supported() { TABLE_MEMORY_WORDS } else { SMALL_TABLE_MEMORY_WORDS }
}

/// Creates and pins the map if it is missing, in the size that this kernel allows.
pub(crate) fn pin_table_memory(pins: &PinDirectory) -> Result<()> {
    let pin = pins.map_path(POLICY_TABLES);
    if pin.exists() {
        return Ok(());
    }
    let bytes = u32::try_from(table_memory_words() * size_of::<u32>())?;
    let kind = BPF_MAP_TYPE_ARRAY as u32;
    let shape = aya_obj::Map::new_from_params(kind, 4, bytes, 1, BPF_F_MMAPABLE);
    let map = MapData::create(shape, POLICY_TABLES, None)
        .with_context(|| format!("cannot allocate {bytes} bytes for tables"))?;
    map.pin(&pin).with_context(|| format!("cannot pin {}", pin.display()))
}

impl TableMemory {
    /// Maps the pinned map.
    pub(crate) fn open(pin: &Path) -> Result<Self> {
        Ok(Self { mapped: MappedWords::map(&open_pinned_data(pin)?)? })
    }

    /// Size in words.
    pub(crate) fn len(&self) -> u32 {
        u32::try_from(self.mapped.words().len()).unwrap_or(u32::MAX)
    }

    /// Writes a block, which no program may read yet, with its header.
    pub(crate) fn write_block(&self, start: u32, block: &[u32], id: u16, digest: PolicyDigest) {
        let words = &self.mapped.words()[start as usize..][..block.len()];
        for (word, value) in words.iter().zip(block) {
            word.store(*value, Ordering::Relaxed);
        }
        words[BLOCK_POLICY_ID as usize].store(id.into(), Ordering::Relaxed);
        let digest_words = digest.as_chunks::<4>().0;
        for (word, bytes) in words[BLOCK_DIGEST as usize..].iter().zip(digest_words) {
            word.store(u32::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
    }

    /// Reads the header of the block at this index. `None` if there can be no block.
    pub(crate) fn read_header(&self, start: u32) -> Option<BlockHeader> {
        let words = self.mapped.words().get(start as usize..)?;
        let word = |offset: u32| Some(words.get(offset as usize)?.load(Ordering::Relaxed));
        let mut digest = PolicyDigest::default();
        for (offset, bytes) in (BLOCK_DIGEST..).zip(digest.as_chunks_mut::<4>().0) {
            *bytes = word(offset)?.to_ne_bytes();
        }
        Some(BlockHeader {
            length: word(BLOCK_LENGTH)?,
            policy_id: u16::try_from(word(BLOCK_POLICY_ID)?).ok()?,
            digest,
            is_in_tries: word(BLOCK_ROOT_V4)? == LPM_TRIE_REFERENCE,
        })
    }
}
