//! Publishing compiled policies: equal ones share their tries, and a sandbox's policy is swapped
//! whole, so that a packet is judged by the old table or by the new one.

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
use policy_common::{name, sandbox::MAX_SANDBOXES};
use serde::Serialize;

use super::{
    Slot,
    bpf::{delete, update_many},
    image::{Class, Family, Ids, Image},
    pins::Pins,
    sandboxes::map,
};
use crate::policy::compile::Compiled;

/// Pinned beside the kernel's maps, for the agent alone: what was published in each slot.
pub const PUBLISHED: &str = "PUBLISHED";

/// Which compiled policy a verdict comes from, as events tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PolicyId(pub u16);

/// What the kernel enforces in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Digest of the compiled policy.
    pub digest: [u8; 16],
    /// Its number in verdicts and events.
    pub policy: PolicyId,
}

/// [`Published`] as it stands in the map. All zero: nothing, or an update under way.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Record {
    digest: [u8; 16],
    v4: Ids,
    v6: Ids,
    policy: u16,
    padding: [u8; 2],
}

// SAFETY: `repr(C)`, integers and byte arrays only, no implicit padding.
unsafe impl Pod for Record {}

impl Record {
    /// The maps that were published.
    fn image(&self) -> Result<Image> {
        Ok(Image { v4: Family::from_ids(self.v4)?, v6: Family::from_ids(self.v6)? })
    }
}

/// A policy that is in use: its maps and the slots that share them.
struct Shared {
    policy: PolicyId,
    maps: (Ids, Ids),
    slots: HashSet<Slot>,
}

/// The policies in force.
pub struct Policies {
    v4: Outer,
    v6: Outer,
    state: Mutex<State>,
}

struct State {
    records: Array<MapData, Record>,
    shared: HashMap<[u8; 16], Shared>,
    next: u16,
}

impl Policies {
    /// Opens the pinned maps and learns what is in force.
    pub fn open(pins: &Pins) -> Result<Self> {
        let records = records(&pins.map(PUBLISHED))?;
        let mut shared = HashMap::<_, Shared>::new();
        for slot in Slot::all() {
            let record = records.get(&slot.get(), 0)?;
            if record.digest != [0; 16] {
                let policy = PolicyId(record.policy);
                let maps = (record.v4, record.v6);
                let entry = shared.entry(record.digest);
                let fresh = || Shared { policy, maps, slots: HashSet::new() };
                entry.or_insert_with(fresh).slots.insert(slot);
            }
        }
        // Not where the agent before this one began: what remembers a policy by its number must not
        // take a new one for it.
        let seconds = SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs());
        let next = u16::try_from(seconds % u64::from(u16::MAX)).unwrap_or(1);
        let state = Mutex::new(State { records, shared, next });
        let v4 = Outer::open(pins, [name::POLICIES_V4, name::LARGE_V4, name::HUGE_V4])?;
        let v6 = Outer::open(pins, [name::POLICIES_V6, name::LARGE_V6, name::HUGE_V6])?;
        Ok(Self { v4, v6, state })
    }

    /// Puts a compiled policy into force in some slots; returns when the kernel enforces it.
    ///
    /// On an error the old policies stay in force.
    pub fn publish(&self, slots: &[Slot], compiled: &Compiled) -> Result<PolicyId> {
        let digest = compiled.digest();
        let existing = self.lock()?.find(&digest);
        let (policy, image) = match existing {
            Some(found) => found,
            None => {
                let policy = self.lock()?.free_id()?;
                (policy, Image::build(compiled, policy.0)?)
            }
        };
        let maps = (image.v4.ids()?, image.v6.ids()?);
        let before = self.lock()?.records(slots)?;
        self.lock()?.record(slots, Record::default())?;
        if let Err(error) = self.swap(slots, &image) {
            return Err(self.roll_back(&before, error));
        }
        let mut state = self.lock()?;
        let (v4, v6) = maps;
        state.record(slots, Record { digest, v4, v6, policy: policy.0, padding: [0; 2] })?;
        state.share(slots, digest, policy, maps);
        Ok(policy)
    }

    /// What is in force in a slot; `None` also when that is not known.
    pub fn published(&self, slot: Slot) -> Result<Option<Published>> {
        let record = self.lock()?.records.get(&slot.get(), 0)?;
        let known = record.digest != [0; 16];
        Ok(known.then_some(Published { digest: record.digest, policy: PolicyId(record.policy) }))
    }

    /// Takes the policy out of a slot, which denies everything from now on.
    pub fn withdraw(&self, slot: Slot) -> Result<()> {
        let mut state = self.lock()?;
        state.record(&[slot], Record::default())?;
        state.unshare(slot);
        drop(state);
        thread::scope(|scope| {
            let v6 = scope.spawn(|| self.v6.withdraw(slot));
            self.v4.withdraw(slot)?;
            v6.join().map_err(|_| anyhow!("the thread that withdraws panicked"))?
        })
    }

    /// Points the slots to new tries. The kernel waits for a grace period before it says done, so
    /// both families wait at the same time.
    fn swap(&self, slots: &[Slot], image: &Image) -> Result<()> {
        let slots: Vec<u32> = slots.iter().map(|slot| slot.get()).collect();
        thread::scope(|scope| {
            let v6 = scope.spawn(|| self.v6.swap(&slots, &image.v6));
            self.v4.swap(&slots, &image.v4)?;
            v6.join().map_err(|_| anyhow!("the thread that publishes panicked"))?
        })
    }

    /// Puts the policies back that were in force before an update that failed; where that is not
    /// possible, none is. Returns the error of the update.
    fn roll_back(&self, before: &[(Slot, Record)], error: anyhow::Error) -> anyhow::Error {
        for (slot, record) in before {
            let restored = record.image().and_then(|image| self.swap(&[*slot], &image));
            let noted = restored.and_then(|()| self.lock()?.record(&[*slot], *record));
            if noted.is_err() && self.withdraw(*slot).is_err() {
                return error.context(format!("slot {} is in an unknown state", slot.get()));
            }
        }
        error
    }

    fn lock(&self) -> Result<MutexGuard<'_, State>> {
        self.state.lock().map_err(|_| anyhow!("the table of policies is poisoned by a panic"))
    }
}

impl State {
    fn find(&self, digest: &[u8; 16]) -> Option<(PolicyId, Image)> {
        let shared = self.shared.get(digest)?;
        let v4 = Family::from_ids(shared.maps.0).ok()?;
        let v6 = Family::from_ids(shared.maps.1).ok()?;
        Some((shared.policy, Image { v4, v6 }))
    }

    /// A number that no policy in force has; numbers are used in turn, so that events of a policy
    /// just replaced are not taken for another's.
    fn free_id(&mut self) -> Result<PolicyId> {
        let used: HashSet<u16> = self.shared.values().map(|shared| shared.policy.0).collect();
        for _ in 0..=u16::MAX {
            let id = self.next;
            self.next = self.next.wrapping_add(1);
            if id != 0 && !used.contains(&id) {
                return Ok(PolicyId(id));
            }
        }
        Err(anyhow!("every policy number is in use"))
    }

    fn records(&self, slots: &[Slot]) -> Result<Vec<(Slot, Record)>> {
        let get = |slot: &Slot| Ok((*slot, self.records.get(&slot.get(), 0)?));
        slots.iter().map(get).collect()
    }

    fn record(&mut self, slots: &[Slot], record: Record) -> Result<()> {
        for slot in slots {
            self.records.set(slot.get(), record, 0)?;
        }
        Ok(())
    }

    fn share(&mut self, slots: &[Slot], digest: [u8; 16], policy: PolicyId, maps: (Ids, Ids)) {
        for slot in slots {
            self.unshare(*slot);
        }
        let fresh = || Shared { policy, maps, slots: HashSet::new() };
        let shared = self.shared.entry(digest).or_insert_with(fresh);
        shared.slots.extend(slots);
    }

    fn unshare(&mut self, slot: Slot) {
        self.shared.retain(|_, shared| {
            shared.slots.remove(&slot);
            !shared.slots.is_empty()
        });
    }
}

/// The arrays of maps of one address family, by slot.
struct Outer {
    tries: MapData,
    large: MapData,
    huge: MapData,
}

impl Outer {
    fn open(pins: &Pins, [tries, large, huge]: [&str; 3]) -> Result<Self> {
        let data = |name| {
            let pin = pins.map(name);
            MapData::from_pin(&pin).with_context(|| format!("cannot open {}", pin.display()))
        };
        Ok(Self { tries: data(tries)?, large: data(large)?, huge: data(huge)? })
    }

    /// Points the slots to the maps of a family. A table comes before the trie that names it, and
    /// one that is named no more goes after: in between, every trie finds its table.
    fn swap(&self, slots: &[u32], family: &Family) -> Result<()> {
        let tables = [(&self.large, Class::Large), (&self.huge, Class::Huge)];
        for (outer, class) in tables {
            if let Some(table) = family.table(class) {
                set(outer, slots, table)?;
            }
        }
        set(&self.tries, slots, family.trie())?;
        for (outer, _) in tables.into_iter().filter(|(_, class)| family.table(*class).is_none()) {
            for slot in slots {
                delete(outer.fd().as_fd(), *slot).context("cannot remove an old table")?;
            }
        }
        Ok(())
    }

    fn withdraw(&self, slot: Slot) -> Result<()> {
        for outer in [&self.tries, &self.large, &self.huge] {
            delete(outer.fd().as_fd(), slot.get()).context("cannot withdraw a policy")?;
        }
        Ok(())
    }
}

fn set(outer: &MapData, slots: &[u32], inner: BorrowedFd<'_>) -> Result<()> {
    let inner = vec![inner.as_raw_fd(); slots.len()];
    update_many(outer.fd().as_fd(), slots, &inner).context("cannot publish a policy")
}

/// Opens the record of what was published, or makes it.
fn records(pin: &Path) -> Result<Array<MapData, Record>> {
    if !pin.exists() {
        let shape = aya_obj::Map::new_from_params(
            BPF_MAP_TYPE_ARRAY as u32,
            size_of::<u32>() as u32,
            size_of::<Record>() as u32,
            MAX_SANDBOXES,
            0,
        );
        let data = MapData::create(shape, PUBLISHED, None)?;
        data.pin(pin).with_context(|| format!("cannot pin {}", pin.display()))?;
        return Ok(Map::from_map_data(data)?.try_into()?);
    }
    Ok(map(pin)?.try_into()?)
}
