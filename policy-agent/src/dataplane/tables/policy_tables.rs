//! Publishes compiled policies. Equal policies share their tables. One store to the endpoint of a
//! slot replaces its policy, so that a packet is judged by either the old or the new one.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::SystemTime,
};

use anyhow::{Context as _, Result, anyhow};
use policy_common::{
    bpf_names,
    policy_table::{
        BLOCK_HEADER_WORDS, BLOCK_LENGTH, BLOCK_ROOT_V4, BLOCK_ROOT_V6, LPM_TRIE_REFERENCE,
    },
};
use serde::Serialize;

use super::{
    block_allocator::BlockAllocator,
    lpm_tries::{LpmTries, TrieKeys},
    reclaimer::Reclaimer,
    table_memory::{PolicyDigest, TableMemory},
    trie_builder,
};
use crate::{
    dataplane::{
        Slot, TableKind,
        maps::{mapped_endpoints::MappedEndpoints, pin_directory::PinDirectory},
    },
    policy::compile::CompiledPolicy,
};

/// Identifies the compiled policy of a verdict in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PolicyId(pub u16);

/// The policy that the kernel enforces in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedPolicy {
    /// Digest of the compiled policy.
    pub digest: PolicyDigest,
    /// Its ID in verdicts and events.
    pub policy_id: PolicyId,
}

/// A block that slots refer to, or that was retired.
pub(crate) struct PublishedBlock {
    /// Index of its first word.
    start: u32,
    /// Size in words.
    length: u32,
    digest: PolicyDigest,
    policy_id: PolicyId,
    slots: HashSet<Slot>,
    /// The policy's keys in the LPM tries, if its prefixes are there. Empty if an earlier agent
    /// published it.
    trie_keys: Option<TrieKeys>,
}

/// The policies in force.
pub(crate) struct PolicyTables {
    state: Arc<Mutex<TableState>>,
    memory: TableMemory,
    endpoints: Arc<MappedEndpoints>,
    table_kind: TableKind,
    reclaimer: Reclaimer,
    /// Held while policies change. Waiting for free memory must not lock the state.
    changing: Mutex<()>,
}

struct TableState {
    allocator: BlockAllocator,
    lpm_tries: LpmTries,
    /// The blocks in force, by their start.
    blocks: HashMap<u32, PublishedBlock>,
    /// The IDs of blocks in force and of retired blocks.
    policy_ids: HashSet<u16>,
    next_policy_id: u16,
}

impl PolicyTables {
    /// Opens the pinned maps and reads the policies in force.
    pub(crate) fn open(
        pins: &PinDirectory,
        endpoints: Arc<MappedEndpoints>,
        table_kind: TableKind,
    ) -> Result<Self> {
        let memory = TableMemory::open(&pins.map_path(bpf_names::POLICY_TABLES))?;
        let mut state = TableState {
            allocator: BlockAllocator::new(memory.len()),
            lpm_tries: LpmTries::open(pins)?,
            blocks: HashMap::new(),
            policy_ids: HashSet::new(),
            next_policy_id: first_policy_id(),
        };
        for slot in Slot::all() {
            state.adopt_block(slot, &memory, &endpoints);
        }
        state.remove_orphaned_keys();
        let state = Arc::new(Mutex::new(state));
        let freeing = Arc::clone(&state);
        let reclaimer = Reclaimer::start(move |blocks| lock_state(&freeing).free_blocks(blocks))?;
        Ok(Self { state, memory, endpoints, table_kind, reclaimer, changing: Mutex::new(()) })
    }

    /// Publishes a compiled policy in some slots. The kernel enforces it when this returns.
    ///
    /// # Errors
    ///
    /// There is no room. The old policies stay in force.
    pub(crate) fn publish_policy(
        &self,
        slots: &[Slot],
        compiled: &CompiledPolicy,
    ) -> Result<PolicyId> {
        let digest = compiled.digest();
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = lock_state(&self.state).find_shared(&digest, self.table_kind);
        let start = match shared {
            Some(start) => start,
            None => self.add_block(compiled, digest)?,
        };
        let mut state = lock_state(&self.state);
        for slot in slots {
            self.endpoints.policy_block(*slot).store(start, Ordering::Release);
            state.leave_block(*slot, start, &self.reclaimer);
        }
        let block = state.blocks.get_mut(&start).context("the block is gone")?;
        block.slots.extend(slots);
        Ok(block.policy_id)
    }

    /// The policy in force in a slot. `None` if there is none, or if it has to be published again
    /// because it is not in the configured kind of table.
    pub(crate) fn published_policy(&self, slot: Slot) -> Option<PublishedPolicy> {
        let state = lock_state(&self.state);
        let start = self.endpoints.policy_block(slot).load(Ordering::Relaxed);
        let block = state.blocks.get(&start).filter(|block| block.suits(self.table_kind))?;
        Some(PublishedPolicy { digest: block.digest, policy_id: block.policy_id })
    }

    /// The bytes of all tables in force.
    pub(crate) fn bytes_in_force(&self) -> usize {
        let words = |block: &PublishedBlock| block.length as usize;
        lock_state(&self.state).blocks.values().map(words).sum::<usize>() * size_of::<u32>()
    }

    /// Removes the policy from a slot. All packets of the slot are then denied.
    pub(crate) fn withdraw_policy(&self, slot: Slot) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.endpoints.policy_block(slot).store(0, Ordering::Release);
        lock_state(&self.state).leave_block(slot, 0, &self.reclaimer);
    }

    /// Writes a policy to a new block. Returns its start.
    fn add_block(&self, compiled: &CompiledPolicy, digest: PolicyDigest) -> Result<u32> {
        let table = match self.table_kind {
            TableKind::Flat => trie_builder::build_block(compiled),
            TableKind::Lpm => None,
        };
        if let Some(block) = table
            && let Some(start) = self.allocate(block.len())
        {
            return self.fill_block(start, &block, digest, |_, _| Ok(None));
        }
        let block = block_in_tries();
        let start = self.allocate(block.len()).context("the memory for tables is full")?;
        self.fill_block(start, &block, digest, |tries, id| tries.insert(compiled, id).map(Some))
    }

    fn fill_block(
        &self,
        start: u32,
        block: &[u32],
        digest: PolicyDigest,
        insert: impl FnOnce(&mut LpmTries, u16) -> Result<Option<TrieKeys>>,
    ) -> Result<u32> {
        let length = u32::try_from(block.len())?;
        let mut state = lock_state(&self.state);
        let added = state.allocate_policy_id().and_then(|policy_id| {
            let trie_keys = insert(&mut state.lpm_tries, policy_id.0);
            if trie_keys.is_err() {
                state.policy_ids.remove(&policy_id.0);
            }
            Ok((policy_id, trie_keys?))
        });
        let (policy_id, trie_keys) = match added {
            Ok(added) => added,
            Err(error) => {
                state.allocator.free(start, length);
                return Err(error);
            }
        };
        self.memory.write_block(start, block, policy_id.0, digest);
        let slots = HashSet::new();
        let block = PublishedBlock { start, length, digest, policy_id, slots, trie_keys };
        state.blocks.insert(start, block);
        Ok(start)
    }

    /// Allocates memory, if necessary once retired blocks are freed. `None` if there is too little.
    fn allocate(&self, words: usize) -> Option<u32> {
        let words = u32::try_from(words).ok()?;
        loop {
            if let Some(start) = lock_state(&self.state).allocator.allocate(words) {
                return Some(start);
            }
            if !self.reclaimer.wait_for_one() {
                return None;
            }
        }
    }
}

/// The block of a policy whose prefixes are in the LPM tries: only a header.
fn block_in_tries() -> [u32; BLOCK_HEADER_WORDS as usize] {
    let mut block = [0; BLOCK_HEADER_WORDS as usize];
    block[BLOCK_LENGTH as usize] = BLOCK_HEADER_WORDS;
    block[BLOCK_ROOT_V4 as usize] = LPM_TRIE_REFERENCE;
    block[BLOCK_ROOT_V6 as usize] = LPM_TRIE_REFERENCE;
    block
}

/// Not where the previous agent started. Otherwise consumers that store a policy's ID could mistake
/// a new policy for it.
fn first_policy_id() -> u16 {
    let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs());
    u16::try_from(seconds % u64::from(u16::MAX)).unwrap_or(1)
}

impl TableState {
    /// Adopts the block that an earlier agent published in a slot. A block that cannot be right is
    /// withdrawn, so that the slot's packets are denied.
    fn adopt_block(&mut self, slot: Slot, memory: &TableMemory, endpoints: &MappedEndpoints) {
        let start = endpoints.policy_block(slot).load(Ordering::Relaxed);
        if start == 0 {
            return;
        }
        if let Some(block) = self.blocks.get_mut(&start) {
            block.slots.insert(slot);
            return;
        }
        let reserved = memory.read_header(start).filter(|header| {
            header.length >= BLOCK_HEADER_WORDS && self.allocator.reserve(start, header.length)
        });
        let Some(header) = reserved else {
            tracing::error!(
                slot = slot.get(),
                "its table is damaged: it has no policy until the next change"
            );
            endpoints.policy_block(slot).store(0, Ordering::Release);
            return;
        };
        self.policy_ids.insert(header.policy_id);
        let block = PublishedBlock {
            start,
            length: header.length,
            digest: header.digest,
            policy_id: PolicyId(header.policy_id),
            slots: HashSet::from([slot]),
            trie_keys: header.is_in_tries.then(TrieKeys::default),
        };
        self.blocks.insert(start, block);
    }

    /// The block with this digest.
    fn find_shared(&self, digest: &PolicyDigest, kind: TableKind) -> Option<u32> {
        let is_same = |block: &&PublishedBlock| block.digest == *digest && block.suits(kind);
        self.blocks.values().find(is_same).map(|block| block.start)
    }

    /// Removes a slot from all blocks but one, and retires those that no slot refers to.
    fn leave_block(&mut self, slot: Slot, except: u32, reclaimer: &Reclaimer) {
        let left = self.blocks.extract_if(|start, block| {
            *start != except && block.slots.remove(&slot) && block.slots.is_empty()
        });
        left.for_each(|(_, block)| reclaimer.retire(block));
    }

    /// Allocates an ID that no policy has. IDs are used in rotation, so that events of a recently
    /// replaced policy are not attributed to another.
    fn allocate_policy_id(&mut self) -> Result<PolicyId> {
        for _ in 0..=u16::MAX {
            let id = self.next_policy_id;
            self.next_policy_id = self.next_policy_id.wrapping_add(1);
            if id != 0 && self.policy_ids.insert(id) {
                return Ok(PolicyId(id));
            }
        }
        Err(anyhow!("every policy number is in use"))
    }

    /// Removes the prefixes of policies that no longer exist from the LPM tries.
    fn remove_orphaned_keys(&mut self) {
        let orphaned = self.lpm_tries.keys_of_others(&self.policy_ids);
        self.lpm_tries.remove(&orphaned);
    }

    fn free_blocks(&mut self, blocks: Vec<PublishedBlock>) {
        for block in blocks {
            self.policy_ids.remove(&block.policy_id.0);
            if let Some(keys) = &block.trie_keys {
                match keys.is_empty() {
                    true => self.remove_orphaned_keys(),
                    false => self.lpm_tries.remove(keys),
                }
            }
            self.allocator.free(block.start, block.length);
        }
    }
}

impl PublishedBlock {
    /// Whether the policy is where it would be published with this setting.
    fn suits(&self, kind: TableKind) -> bool {
        kind == TableKind::Flat || self.trie_keys.is_some()
    }
}

fn lock_state(state: &Mutex<TableState>) -> MutexGuard<'_, TableState> {
    // Every update leaves a state in which no block is used twice.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
