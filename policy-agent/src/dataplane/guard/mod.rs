//! The guard, which fails closed. Programs at TC judge what a sandbox sends, but a packet can come
//! past them: an interface may be created again while no agent runs, and a container that administers
//! its own network can make the kernel skip TC on the host's side of its veth (`ifb`, which sets
//! `tc_skip_classify`). So the programs mark what they let pass, and a hook behind TC drops what comes
//! from a guarded interface, known by its name, without the mark.
//!
//! The hook comes before reassembly and connection tracking, so it sees every packet as TC left it.
//! It is a pinned BPF program of netfilter in the agent's own network namespace, and a table of
//! nftables in other namespaces, on older kernels, and for ports of bridges.

mod guard_program;
mod guard_records;
mod guard_state;
mod netfilter_guard;
mod netfilter_syscall;
mod nft_table;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard},
};

use anyhow::{Result, anyhow};

pub(crate) use self::{guard_program::load_empty_program, nft_table::is_nftables_usable};
use self::{
    guard_records::GuardRecords,
    guard_state::{GuardState, GuardedPlace},
    netfilter_guard::NetfilterGuard,
    nft_table::{NftFamily, NftTable},
};
use crate::dataplane::{
    GuardMethod, GuardSettings, HostInterface, Slot,
    features::NETFILTER_LINKS,
    maps::pin_directory::PinDirectory,
    net::{link_device, netns::NetnsHandle},
};

/// Priority of the hook. Reassembly has -400, raw tables -300 and connection tracking -200.
const GUARD_PRIORITY: i32 = -500;

/// The guard of all interfaces. The kernel goes on guarding when this is dropped.
pub(crate) struct InterfaceGuard {
    method: GuardMethod,
    records: GuardRecords,
    nft_table: NftTable,
    state: Mutex<GuardState>,
}

impl InterfaceGuard {
    /// Adopts what an earlier agent guarded. The programs that set the mark must be installed.
    pub(crate) fn open(pins: &PinDirectory, bpffs: &Path, settings: GuardSettings) -> Result<Self> {
        let GuardSettings { method, mark } = settings;
        let nft_table = NftTable::new(bpffs, mark.get());
        let own = NetnsHandle::open(None)?;
        if method == GuardMethod::Off {
            remove_guard(pins, bpffs)?;
        }
        let records = GuardRecords::new(pins);
        let netfilter = match method == GuardMethod::Auto && NETFILTER_LINKS.is_supported() {
            true => NetfilterGuard::open(pins, &own, mark.get())
                .inspect_err(|error| tracing::error!("nftables guards instead: {error:#}"))
                .ok(),
            false => None,
        };
        let mut state = GuardState::new(own.device_and_inode(), netfilter, records.load()?);
        state.adopt_own_namespace(&nft_table, &own)?;
        if state.netfilter.is_none() {
            netfilter_guard::remove_namespaces(pins, |_| true)?;
        }
        Ok(Self { method, records, nft_table, state: Mutex::new(state) })
    }

    /// Guards an interface, whether or not it exists, in place of another with the same pin name.
    /// Restores what has been removed. Without means to guard it, `auto` only reports that.
    pub(crate) fn guard_interface(
        &self,
        id: &str,
        slot: Slot,
        interface: &HostInterface,
    ) -> Result<()> {
        // A namespace that is gone has taken its tables along.
        let (false, Ok(netns)) =
            (self.method == GuardMethod::Off, NetnsHandle::open(interface.netns.as_deref()))
        else {
            return Ok(());
        };
        let mut state = self.lock_state()?;
        match (self.install(&mut state, id, slot, interface, &netns), self.method) {
            (Ok(()), _) => state.failed.remove(id),
            (Err(error), GuardMethod::Auto) => {
                let is_new = state.failed.insert(id.to_owned());
                if is_new {
                    tracing::warn!(interface = interface.name, "there is no guard: {error:#}");
                }
                is_new
            }
            (Err(error), _) => return Err(error.context("dataplane.guard")),
        };
        Ok(())
    }

    fn install(
        &self,
        state: &mut GuardState,
        id: &str,
        slot: Slot,
        interface: &HostInterface,
        netns: &NetnsHandle,
    ) -> Result<()> {
        let netns_id = netns.device_and_inode();
        let place =
            GuardedPlace { interface: interface.clone(), netns: Some(netns_id), slot: Some(slot) };
        let previous = state.guarded.get(id).cloned();
        if previous.as_ref() != Some(&place) {
            if previous.as_ref().is_none_or(|previous| previous.interface != *interface) {
                self.records.write(id, interface)?;
            }
            state.guarded.insert(id.to_owned(), place);
            if link_device::is_bridge_port(interface).unwrap_or(false) {
                state.use_table(netns_id, NftFamily::Bridge);
            }
        }
        let own = netns_id == state.own_netns;
        match state.netfilter.as_mut().filter(|_| own) {
            Some(netfilter) => netfilter.insert(&interface.name, Some(slot))?,
            None => state.use_table(netns_id, NftFamily::Inet),
        }
        state.write_tables(&self.nft_table, netns)?;
        let moved = previous.filter(|previous| previous.interface != *interface);
        moved.map_or(Ok(()), |moved| state.forget(&self.nft_table, &moved))
    }

    /// Stops guarding the interface with this pin name. Succeeds if there is none.
    pub(crate) fn release_interface(&self, id: &str) -> Result<()> {
        let mut state = self.lock_state()?;
        self.records.remove(id)?;
        state.failed.remove(id);
        let place = state.guarded.remove(id);
        place.map_or(Ok(()), |place| state.forget(&self.nft_table, &place))
    }

    /// Whether the interface with this pin name is guarded. `None` if the guard is off.
    pub(crate) fn is_guarded(&self, id: &str) -> Result<Option<bool>> {
        let state = self.lock_state()?;
        let is_guarded = state.guarded.contains_key(id) && !state.failed.contains(id);
        Ok((self.method != GuardMethod::Off).then_some(is_guarded))
    }

    /// Packets and bytes that the guard dropped for a slot. Tables of nftables do not tell.
    pub(crate) fn dropped(&self, slot: Slot) -> Result<(u64, u64)> {
        let state = self.lock_state()?;
        let own = |place: &&GuardedPlace| {
            place.slot == Some(slot) && place.netns == Some(state.own_netns)
        };
        match (&state.netfilter, state.guarded.values().find(own)) {
            (Some(netfilter), Some(place)) => netfilter.dropped(&place.interface.name),
            _ => Ok((0, 0)),
        }
    }

    /// Restores pins that have been removed, and guards interfaces of the agent's namespace that
    /// have become ports of bridges.
    pub(crate) fn restore(&self) -> Result<()> {
        let mut state = self.lock_state()?;
        if let Some(netfilter) = &state.netfilter {
            netfilter.restore_missing_pins()?;
        }
        let own = state.own_netns;
        let guarded = state.interfaces_in(own);
        if !state.uses_table(own, NftFamily::Bridge)
            && link_device::bridge_ports()?.iter().any(|port| guarded.contains(port))
        {
            state.use_table(own, NftFamily::Bridge);
            state.write_tables(&self.nft_table, &NetnsHandle::open(None)?)?;
        }
        Ok(())
    }

    fn lock_state(&self) -> Result<MutexGuard<'_, GuardState>> {
        self.state.lock().map_err(|_| anyhow!("the guard is poisoned by a panic"))
    }
}

/// Removes the guard that these pins record, whatever guards now.
pub(crate) fn remove_guard(pins: &PinDirectory, bpffs: &Path) -> Result<()> {
    if !pins.guard_directory().exists() {
        return Ok(());
    }
    let records = GuardRecords::new(pins).load()?;
    let mut paths: BTreeSet<_> = records.iter().map(|(_, place)| place.netns.as_deref()).collect();
    paths.insert(None);
    let nft_table = NftTable::new(bpffs, 0);
    for netns in paths.into_iter().filter_map(|path| NetnsHandle::open(path).ok()) {
        for family in NftFamily::ALL.into_iter().filter(|family| nft_table.exists(&netns, *family))
        {
            nft_table.write(&netns, family, &BTreeSet::new())?;
        }
    }
    pins.remove_guard()
}
