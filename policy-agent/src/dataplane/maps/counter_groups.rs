//! The packet counters, in one map per group of slots. A group's map is created for its first
//! sandbox: counters are kept per CPU, so maps for all slots would be large on large hosts.

use std::sync::{Mutex, MutexGuard};

use anyhow::{Context as _, Result, anyhow};
use aya::{
    maps::{ArrayOfMaps, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_PERCPU_ARRAY;
use policy_common::{
    bpf_names,
    counters::{COUNTER_GROUP_SLOTS, COUNTER_GROUPS, ReasonCounters},
};

use crate::dataplane::{
    Slot,
    maps::{pin_directory::PinDirectory, pinned_maps::open_pinned_map},
};

/// The counters of a group of slots.
type CounterGroupMap = PerCpuArray<MapData, ReasonCounters>;

/// The counters of all sandboxes.
pub(crate) struct CounterGroups {
    state: Mutex<OpenGroups>,
}

struct OpenGroups {
    outer: ArrayOfMaps<MapData, CounterGroupMap>,
    /// The maps that exist, by group.
    groups: Vec<Option<CounterGroupMap>>,
}

impl CounterGroups {
    /// Opens the pinned map and the maps in it.
    pub(crate) fn open(pins: &PinDirectory) -> Result<Self> {
        let outer: ArrayOfMaps<MapData, CounterGroupMap> =
            open_pinned_map(&pins.map_path(bpf_names::COUNTERS))?.try_into()?;
        let open = |group| match outer.get(&group, 0) {
            Ok(map) => Ok(Some(map)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        };
        let groups = (0..COUNTER_GROUPS).map(open).collect::<Result<_, _>>()?;
        Ok(Self { state: Mutex::new(OpenGroups { outer, groups }) })
    }

    /// Sets a slot's counters to zero. Creates the map of its group if it is missing.
    pub(crate) fn reset(&self, slot: Slot) -> Result<()> {
        let zero = PerCpuValues::try_from(vec![ReasonCounters::default(); possible_cpus()?])?;
        let (group, member) = position(slot);
        Ok(self.lock()?.create_group(group)?.set(member, zero, 0)?)
    }

    /// A slot's counters, summed over all CPUs.
    pub(crate) fn read(&self, slot: Slot) -> Result<ReasonCounters> {
        let (group, member) = position(slot);
        let mut sum = ReasonCounters::default();
        let state = self.lock()?;
        let Some(Some(map)) = state.groups.get(group as usize) else { return Ok(sum) };
        for counters in map.get(&member, 0)?.iter() {
            for (total, counter) in sum.by_reason.iter_mut().zip(&counters.by_reason) {
                total.packets += counter.packets;
                total.bytes += counter.bytes;
            }
        }
        Ok(sum)
    }

    fn lock(&self) -> Result<MutexGuard<'_, OpenGroups>> {
        self.state.lock().map_err(|_| anyhow!("the counters' handles are poisoned by a panic"))
    }
}

impl OpenGroups {
    fn create_group(&mut self, group: u32) -> Result<&mut CounterGroupMap> {
        let open = self.groups.get_mut(group as usize).context("there is no such slot")?;
        if open.is_none() {
            let map = create_group_map()?;
            self.outer.set(group, &map, 0)?;
            *open = Some(map);
        }
        open.as_mut().context("the map was just created")
    }
}

/// The group of a slot, and its index in it.
fn position(slot: Slot) -> (u32, u32) {
    (slot.get() / COUNTER_GROUP_SLOTS, slot.get() % COUNTER_GROUP_SLOTS)
}

fn create_group_map() -> Result<CounterGroupMap> {
    let kind = BPF_MAP_TYPE_PERCPU_ARRAY as u32;
    let value_size = u32::try_from(size_of::<ReasonCounters>())?;
    let shape = aya_obj::Map::new_from_params(kind, 4, value_size, COUNTER_GROUP_SLOTS, 0);
    let map = MapData::create(shape, bpf_names::COUNTERS, None)
        .context("cannot allocate the counters of more sandboxes")?;
    Ok(Map::from_map_data(map)?.try_into()?)
}

fn possible_cpus() -> Result<usize> {
    nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))
}
