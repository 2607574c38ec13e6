//! The kernel's table of identities, and what it counts per sandbox.

use std::{
    net::IpAddr,
    path::Path,
    sync::{Mutex, MutexGuard},
};

use anyhow::{Context as _, Result, anyhow, bail};
use aya::{
    maps::{Array, Map, MapData, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use policy_common::{
    counter::Counters,
    limit::Limits,
    name,
    sandbox::{ACTIVE, MAC_KNOWN, MAX_ADDRESSES, REPORT_FLOWS, Sandbox},
};

use super::{Identity, Slot, pins::Pins};

/// The maps that have one entry per slot, policies aside.
pub struct Sandboxes {
    identities: Mutex<Array<MapData, Sandbox>>,
    limits: Mutex<Array<MapData, Limits>>,
    counters: Mutex<PerCpuArray<MapData, Counters>>,
}

impl Sandboxes {
    /// Opens the pinned maps.
    pub fn open(pins: &Pins) -> Result<Self> {
        Ok(Self {
            identities: Mutex::new(map(&pins.map(name::SANDBOXES))?.try_into()?),
            limits: Mutex::new(map(&pins.map(name::LIMITS))?.try_into()?),
            counters: Mutex::new(map(&pins.map(name::COUNTERS))?.try_into()?),
        })
    }

    /// Writes an identity into a slot whose counters start at zero.
    pub fn write(&self, slot: Slot, identity: &Identity, flags: u32) -> Result<()> {
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus()?])?;
        lock(&self.counters)?.set(slot.get(), zero, 0)?;
        lock(&self.limits)?.set(slot.get(), Limits::default(), 0)?;
        let sandbox = entry(slot, identity, flags)?;
        lock(&self.identities)?.set(slot.get(), sandbox, 0)?;
        Ok(())
    }

    /// Takes the identity out of a slot: whatever still names it is denied.
    pub fn clear(&self, slot: Slot) -> Result<()> {
        Ok(lock(&self.identities)?.set(slot.get(), Sandbox::default(), 0)?)
    }

    /// Sets the flags of every active slot; `MAC_KNOWN` belongs to the identity and stays.
    pub fn set_flags(&self, flags: u32) -> Result<()> {
        let mut identities = lock(&self.identities)?;
        for slot in Slot::all() {
            let mut sandbox = identities.get(&slot.get(), 0)?;
            let wanted = flags | sandbox.flags & MAC_KNOWN;
            if sandbox.flags & ACTIVE != 0 && sandbox.flags != wanted {
                sandbox.flags = wanted;
                identities.set(slot.get(), sandbox, 0)?;
            }
        }
        Ok(())
    }

    /// What was counted, over all CPUs.
    pub fn counters(&self, slot: Slot) -> Result<Counters> {
        let per_cpu = lock(&self.counters)?.get(&slot.get(), 0)?;
        let mut sum = Counters::default();
        for counters in per_cpu.iter() {
            for (total, counter) in sum.by_reason.iter_mut().zip(&counters.by_reason) {
                total.packets += counter.packets;
                total.bytes += counter.bytes;
            }
        }
        Ok(sum)
    }

    /// The token buckets, and the events that were not written.
    pub fn limits(&self, slot: Slot) -> Result<Limits> {
        Ok(lock(&self.limits)?.get(&slot.get(), 0)?)
    }
}

/// Opens a pinned map.
pub fn map(pin: &Path) -> Result<Map> {
    let data = MapData::from_pin(pin).with_context(|| format!("cannot open {}", pin.display()))?;
    Ok(Map::from_map_data(data)?)
}

/// The flags of settings, with or without the reporting of flows.
pub fn with_flows(flags: u32, report: bool) -> u32 {
    if report { flags | REPORT_FLOWS } else { flags }
}

fn entry(slot: Slot, identity: &Identity, flags: u32) -> Result<Sandbox> {
    let mut sandbox = Sandbox { flags, owner: owner(slot)?, ..Sandbox::default() };
    if let Some(mac) = identity.mac {
        sandbox.flags |= MAC_KNOWN;
        sandbox.mac = mac;
    }
    let (mut v4, mut v6) = (0, 0);
    for address in &identity.addresses {
        match address {
            IpAddr::V4(address) => place(&mut sandbox.v4, &mut v4, address.octets())?,
            IpAddr::V6(address) => place(&mut sandbox.v6, &mut v6, address.octets())?,
        }
    }
    Ok(sandbox)
}

fn place<T>(places: &mut [T; MAX_ADDRESSES], used: &mut usize, octets: T) -> Result<()> {
    let Some(place) = places.get_mut(*used) else {
        bail!("a sandbox has at most {MAX_ADDRESSES} addresses of each family");
    };
    *place = octets;
    *used += 1;
    Ok(())
}

/// A name for this use of the slot: the slot in the low bits, chance in the others.
fn owner(slot: Slot) -> Result<u32> {
    let mut random = [0; 4];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)
        .context("cannot read /dev/urandom")?;
    Ok(slot.get() | u32::from_ne_bytes(random) << 12)
}

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> Result<MutexGuard<'_, T>> {
    mutex.lock().map_err(|_| anyhow!("a map's handle is poisoned by a panic"))
}
