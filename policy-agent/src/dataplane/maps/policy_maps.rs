//! Publishes compiled policies. Equal policies share their maps. A sandbox's policy is replaced
//! atomically, so that a packet is judged by either the old or the new one.

use std::{
    collections::{HashMap, HashSet},
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd},
    path::Path,
    sync::{Mutex, MutexGuard},
    thread,
    time::SystemTime,
};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    Pod,
    maps::{Array, Map, MapData},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;
use policy_common::{bpf_names, endpoint::MAX_SANDBOXES};
use serde::Serialize;

use crate::{
    dataplane::{
        Slot,
        features::ARRAY_OF_MAPS_BATCH,
        maps::{
            batch_update::update_elements,
            bpf_syscall::clear_inner_map,
            pin_directory::PinDirectory,
            pinned_maps::{open_pinned_data, open_pinned_map},
            policy_image::{FamilyMapIds, FamilyMaps, PolicyImage, PoptrieClass},
        },
    },
    policy::compile::CompiledPolicy,
};

/// Pinned with the maps of the kernel programs, but only used by the agent: the policy published in
/// each slot.
pub(crate) const PUBLISHED_MAP_NAME: &str = "PUBLISHED";

/// Identifies the compiled policy of a verdict in events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PolicyId(pub u16);

/// The policy that the kernel enforces in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedPolicy {
    /// Digest of the compiled policy.
    pub digest: [u8; 16],
    /// Its ID in verdicts and events.
    pub policy_id: PolicyId,
}

/// The map value for a [`PublishedPolicy`]. All zero if there is none or an update is in progress.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct PublishedRecord {
    digest: [u8; 16],
    map_ids_v4: FamilyMapIds,
    map_ids_v6: FamilyMapIds,
    policy_id: u16,
    padding: [u8; 2],
}

// SAFETY: `repr(C)`, consisting of integers and byte arrays without implicit padding.
unsafe impl Pod for PublishedRecord {}

impl PublishedRecord {
    /// Opens the published maps.
    fn open_image(&self) -> Result<PolicyImage> {
        Ok(PolicyImage {
            ipv4_maps: FamilyMaps::open_by_ids(self.map_ids_v4)?,
            ipv6_maps: FamilyMaps::open_by_ids(self.map_ids_v6)?,
        })
    }
}

/// A policy in use: its maps and the slots that share them.
struct SharedPolicy {
    policy_id: PolicyId,
    map_ids: (FamilyMapIds, FamilyMapIds),
    slots: HashSet<Slot>,
}

/// The policies in force.
pub(crate) struct PolicyMaps {
    outer_maps_v4: FamilyOuterMaps,
    outer_maps_v6: FamilyOuterMaps,
    state: Mutex<PolicyMapState>,
}

struct PolicyMapState {
    records: Array<MapData, PublishedRecord>,
    policies_by_digest: HashMap<[u8; 16], SharedPolicy>,
    next_policy_id: u16,
}

impl PolicyMaps {
    /// Opens the pinned maps and reads the policies in force.
    pub(crate) fn open(pins: &PinDirectory) -> Result<Self> {
        let records = open_published_map(&pins.map_path(PUBLISHED_MAP_NAME))?;
        let mut shared = HashMap::<_, SharedPolicy>::new();
        for slot in Slot::all() {
            let record = records.get(&slot.get(), 0)?;
            if record.digest != [0; 16] {
                let policy = PolicyId(record.policy_id);
                let maps = (record.map_ids_v4, record.map_ids_v6);
                let entry = shared.entry(record.digest);
                let fresh =
                    || SharedPolicy { policy_id: policy, map_ids: maps, slots: HashSet::new() };
                entry.or_insert_with(fresh).slots.insert(slot);
            }
        }
        // Does not start where the previous agent started. Otherwise consumers that store a
        // policy's ID could mistake a new policy for it.
        let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs());
        let next = u16::try_from(seconds % u64::from(u16::MAX)).unwrap_or(1);
        let state = Mutex::new(PolicyMapState {
            records,
            policies_by_digest: shared,
            next_policy_id: next,
        });
        let v4 = FamilyOuterMaps::open(
            pins,
            [bpf_names::POLICIES_V4, bpf_names::LARGE_V4, bpf_names::HUGE_V4],
        )?;
        let v6 = FamilyOuterMaps::open(
            pins,
            [bpf_names::POLICIES_V6, bpf_names::LARGE_V6, bpf_names::HUGE_V6],
        )?;
        Ok(Self { outer_maps_v4: v4, outer_maps_v6: v6, state })
    }

    /// Publishes a compiled policy in some slots. The kernel enforces it when this returns.
    ///
    /// On an error the old policies stay in force.
    pub(crate) fn publish_policy(
        &self,
        slots: &[Slot],
        compiled: &CompiledPolicy,
    ) -> Result<PolicyId> {
        let digest = compiled.digest();
        let existing = self.lock_state()?.find_shared(&digest);
        let (policy, image) = match existing {
            Some(found) => found,
            None => {
                let policy = self.lock_state()?.allocate_policy_id()?;
                (policy, PolicyImage::create_maps(compiled, policy.0)?)
            }
        };
        let maps = (image.ipv4_maps.map_ids()?, image.ipv6_maps.map_ids()?);
        let before = self.lock_state()?.read_records(slots)?;
        self.lock_state()?.write_record(slots, PublishedRecord::default())?;
        if let Err(error) = self.point_slots_to(slots, &image) {
            return Err(self.restore_policies(&before, error));
        }
        let mut state = self.lock_state()?;
        let (v4, v6) = maps;
        state.write_record(
            slots,
            PublishedRecord {
                digest,
                map_ids_v4: v4,
                map_ids_v6: v6,
                policy_id: policy.0,
                padding: [0; 2],
            },
        )?;
        state.share_policy(slots, digest, policy, maps);
        Ok(policy)
    }

    /// The policy in force in a slot. `None` if there is none or it is unknown.
    pub(crate) fn published_policy(&self, slot: Slot) -> Result<Option<PublishedPolicy>> {
        let record = self.lock_state()?.records.get(&slot.get(), 0)?;
        let known = record.digest != [0; 16];
        Ok(known.then_some(PublishedPolicy {
            digest: record.digest,
            policy_id: PolicyId(record.policy_id),
        }))
    }

    /// Removes the policy from a slot. All packets of the slot are then denied.
    pub(crate) fn withdraw_policy(&self, slot: Slot) -> Result<()> {
        let mut state = self.lock_state()?;
        state.write_record(&[slot], PublishedRecord::default())?;
        state.unshare_slot(slot);
        drop(state);
        thread::scope(|scope| {
            let v6 = scope.spawn(|| self.outer_maps_v6.clear_slot(slot));
            self.outer_maps_v4.clear_slot(slot)?;
            v6.join().map_err(|_| anyhow!("the thread that withdraws panicked"))?
        })
    }

    /// Points the slots to new maps. The kernel waits for a grace period per update, so both
    /// families are updated in parallel.
    fn point_slots_to(&self, slots: &[Slot], image: &PolicyImage) -> Result<()> {
        let slots: Vec<u32> = slots.iter().map(|slot| slot.get()).collect();
        thread::scope(|scope| {
            let v6 = scope.spawn(|| self.outer_maps_v6.point_slots_to(&slots, &image.ipv6_maps));
            self.outer_maps_v4.point_slots_to(&slots, &image.ipv4_maps)?;
            v6.join().map_err(|_| anyhow!("the thread that publishes panicked"))?
        })
    }

    /// Restores the policies that were in force before a failed update, or withdraws those that
    /// cannot be restored. Returns the error of the update.
    fn restore_policies(
        &self,
        before: &[(Slot, PublishedRecord)],
        error: anyhow::Error,
    ) -> anyhow::Error {
        for (slot, record) in before {
            let restored =
                record.open_image().and_then(|image| self.point_slots_to(&[*slot], &image));
            let noted = restored.and_then(|()| self.lock_state()?.write_record(&[*slot], *record));
            if noted.is_err() && self.withdraw_policy(*slot).is_err() {
                return error.context(format!("slot {} is in an unknown state", slot.get()));
            }
        }
        error
    }

    fn lock_state(&self) -> Result<MutexGuard<'_, PolicyMapState>> {
        self.state.lock().map_err(|_| anyhow!("the table of policies is poisoned by a panic"))
    }
}

impl PolicyMapState {
    fn find_shared(&self, digest: &[u8; 16]) -> Option<(PolicyId, PolicyImage)> {
        let shared = self.policies_by_digest.get(digest)?;
        let v4 = FamilyMaps::open_by_ids(shared.map_ids.0).ok()?;
        let v6 = FamilyMaps::open_by_ids(shared.map_ids.1).ok()?;
        Some((shared.policy_id, PolicyImage { ipv4_maps: v4, ipv6_maps: v6 }))
    }

    /// Allocates an ID that no policy in force has. IDs are used in rotation, so that events of a
    /// recently replaced policy are not attributed to another.
    fn allocate_policy_id(&mut self) -> Result<PolicyId> {
        let used: HashSet<u16> =
            self.policies_by_digest.values().map(|shared| shared.policy_id.0).collect();
        for _ in 0..=u16::MAX {
            let id = self.next_policy_id;
            self.next_policy_id = self.next_policy_id.wrapping_add(1);
            if id != 0 && !used.contains(&id) {
                return Ok(PolicyId(id));
            }
        }
        Err(anyhow!("every policy number is in use"))
    }

    fn read_records(&self, slots: &[Slot]) -> Result<Vec<(Slot, PublishedRecord)>> {
        let get = |slot: &Slot| Ok((*slot, self.records.get(&slot.get(), 0)?));
        slots.iter().map(get).collect()
    }

    fn write_record(&mut self, slots: &[Slot], record: PublishedRecord) -> Result<()> {
        for slot in slots {
            self.records.set(slot.get(), record, 0)?;
        }
        Ok(())
    }

    fn share_policy(
        &mut self,
        slots: &[Slot],
        digest: [u8; 16],
        policy: PolicyId,
        maps: (FamilyMapIds, FamilyMapIds),
    ) {
        for slot in slots {
            self.unshare_slot(*slot);
        }
        let fresh = || SharedPolicy { policy_id: policy, map_ids: maps, slots: HashSet::new() };
        let shared = self.policies_by_digest.entry(digest).or_insert_with(fresh);
        shared.slots.extend(slots);
    }

    fn unshare_slot(&mut self, slot: Slot) {
        self.policies_by_digest.retain(|_, shared| {
            shared.slots.remove(&slot);
            !shared.slots.is_empty()
        });
    }
}

/// The arrays of maps of one address family, indexed by slot.
struct FamilyOuterMaps {
    lpm_tries: MapData,
    large_poptries: MapData,
    huge_poptries: MapData,
}

impl FamilyOuterMaps {
    fn open(pins: &PinDirectory, [tries, large, huge]: [&str; 3]) -> Result<Self> {
        let data = |name| open_pinned_data(&pins.map_path(name));
        Ok(Self {
            lpm_tries: data(tries)?,
            large_poptries: data(large)?,
            huge_poptries: data(huge)?,
        })
    }

    /// Points the slots to the maps of a family. Poptries are added before the trie that refers to
    /// them, and removed after the trie that no longer does, so that every trie finds its poptrie.
    fn point_slots_to(&self, slots: &[u32], family: &FamilyMaps) -> Result<()> {
        let tables = [
            (&self.large_poptries, PoptrieClass::Large),
            (&self.huge_poptries, PoptrieClass::Huge),
        ];
        for (outer, class) in tables {
            if let Some(table) = family.poptrie_fd(class) {
                set_inner_maps(outer, slots, table)?;
            }
        }
        set_inner_maps(&self.lpm_tries, slots, family.lpm_trie_fd())?;
        for (outer, _) in
            tables.into_iter().filter(|(_, class)| family.poptrie_fd(*class).is_none())
        {
            for slot in slots {
                clear_inner_map(outer.fd().as_fd(), *slot).context("cannot remove an old table")?;
            }
        }
        Ok(())
    }

    fn clear_slot(&self, slot: Slot) -> Result<()> {
        for outer in [&self.lpm_tries, &self.large_poptries, &self.huge_poptries] {
            clear_inner_map(outer.fd().as_fd(), slot.get()).context("cannot withdraw a policy")?;
        }
        Ok(())
    }
}

fn set_inner_maps(outer: &MapData, slots: &[u32], inner: BorrowedFd<'_>) -> Result<()> {
    let inner = vec![inner.as_raw_fd(); slots.len()];
    update_elements(&ARRAY_OF_MAPS_BATCH, outer.fd().as_fd(), slots, &inner)
        .context("cannot publish a policy")
}

/// Opens the map of published policies, or creates it.
fn open_published_map(pin: &Path) -> Result<Array<MapData, PublishedRecord>> {
    if !pin.exists() {
        let shape = aya_obj::Map::new_from_params(
            BPF_MAP_TYPE_ARRAY as u32,
            u32::try_from(size_of::<u32>())?,
            u32::try_from(size_of::<PublishedRecord>())?,
            MAX_SANDBOXES,
            0,
        );
        let data = MapData::create(shape, PUBLISHED_MAP_NAME, None)?;
        data.pin(pin).with_context(|| format!("cannot pin {}", pin.display()))?;
        return Ok(Map::from_map_data(data)?.try_into()?);
    }
    Ok(open_pinned_map(pin)?.try_into()?)
}
