//! What is guarded now, and the tables of nftables that guard it.

use std::collections::{BTreeSet, HashMap};

use anyhow::{Context as _, Result};

use super::{
    netfilter_guard::NetfilterGuard,
    nft_table::{NftFamily, NftTable},
};
use crate::dataplane::{
    HostInterface, Slot,
    net::{netns::NetnsHandle, nftables_generation::nftables_generation},
};

/// Device and inode of a network namespace.
pub(super) type NetnsId = (u64, u64);

/// What is guarded.
pub(super) struct GuardState {
    pub(super) own_netns: NetnsId,
    /// `None`: tables of nftables guard the agent's namespace, too.
    pub(super) netfilter: Option<NetfilterGuard>,
    /// By the name of the pins.
    pub(super) guarded: HashMap<String, GuardedPlace>,
    tables: HashMap<NetnsId, NamespaceTables>,
    /// The pin names of interfaces that cannot be guarded.
    pub(super) failed: BTreeSet<String>,
}

/// An interface that is guarded.
#[derive(Clone, PartialEq)]
pub(super) struct GuardedPlace {
    pub(super) interface: HostInterface,
    /// `None` if its namespace is gone.
    pub(super) netns: Option<NetnsId>,
    /// `None` until the agent names it.
    pub(super) slot: Option<Slot>,
}

/// What the tables of a namespace hold.
#[derive(Default)]
struct NamespaceTables {
    families: BTreeSet<NftFamily>,
    interfaces: BTreeSet<String>,
    generation: Option<u32>,
}

impl GuardState {
    pub(super) fn new(
        own_netns: NetnsId,
        netfilter: Option<NetfilterGuard>,
        records: Vec<(String, HostInterface)>,
    ) -> Self {
        let place = |(id, interface): (String, HostInterface)| {
            let netns = NetnsHandle::open(interface.netns.as_deref()).ok();
            let netns = netns.map(|netns| netns.device_and_inode());
            (id, GuardedPlace { interface, netns, slot: None })
        };
        Self {
            own_netns,
            netfilter,
            guarded: records.into_iter().map(place).collect(),
            tables: HashMap::new(),
            failed: BTreeSet::new(),
        }
    }

    /// Guards what the records name in the agent's namespace, then removes the table that did, if
    /// the program of netfilter does now.
    pub(super) fn adopt_own_namespace(
        &mut self,
        nft_table: &NftTable,
        own: &NetnsHandle,
    ) -> Result<()> {
        let own_id = own.device_and_inode();
        let names = self.interfaces_in(own_id);
        if nft_table.exists(own, NftFamily::Bridge) {
            self.use_table(own_id, NftFamily::Bridge);
        }
        if let Some(netfilter) = &mut self.netfilter {
            names.iter().try_for_each(|name| netfilter.insert(name, None))?;
            netfilter.retain(|name| names.contains(name))?;
            if nft_table.exists(own, NftFamily::Inet) {
                nft_table.write(own, NftFamily::Inet, &BTreeSet::new())?;
            }
        } else if !names.is_empty() {
            self.use_table(own_id, NftFamily::Inet);
        }
        // Errors appear again when the interfaces are guarded.
        let _ = self.write_tables(nft_table, own);
        Ok(())
    }

    pub(super) fn interfaces_in(&self, netns: NetnsId) -> BTreeSet<String> {
        let places = self.guarded.values().filter(|place| place.netns == Some(netns));
        places.map(|place| place.interface.name.clone()).collect()
    }

    pub(super) fn uses_table(&self, netns: NetnsId, family: NftFamily) -> bool {
        self.tables.get(&netns).is_some_and(|tables| tables.families.contains(&family))
    }

    pub(super) fn use_table(&mut self, netns: NetnsId, family: NftFamily) {
        let tables = self.tables.entry(netns).or_default();
        if tables.families.insert(family) {
            tables.generation = None;
        }
    }

    /// Writes the tables of a namespace, unless they are as written before. All of them hold all
    /// guarded interfaces there: a table ignores what does not concern it.
    pub(super) fn write_tables(&mut self, nft_table: &NftTable, netns: &NetnsHandle) -> Result<()> {
        let id = netns.device_and_inode();
        if !self.tables.contains_key(&id) {
            return Ok(());
        }
        let interfaces = self.interfaces_in(id);
        let Some(tables) = self.tables.get_mut(&id) else { return Ok(()) };
        let current = || netns.run_inside(nftables_generation).context("cannot ask nftables");
        if tables.interfaces == interfaces
            && tables.generation.is_some_and(|written| current().is_ok_and(|now| now == written))
        {
            return Ok(());
        }
        tables.generation = None;
        for family in &tables.families {
            let names = interfaces.iter().map(String::as_str).collect();
            nft_table.write(netns, *family, &names)?;
        }
        if interfaces.is_empty() {
            self.tables.remove(&id);
            return Ok(());
        }
        (tables.interfaces, tables.generation) = (interfaces, Some(current()?));
        Ok(())
    }

    /// Stops guarding an interface, unless another sandbox has it.
    pub(super) fn forget(&mut self, nft_table: &NftTable, place: &GuardedPlace) -> Result<()> {
        let same = |other: &GuardedPlace| {
            other.interface.name == place.interface.name && other.netns == place.netns
        };
        let Ok(netns) = NetnsHandle::open(place.interface.netns.as_deref()) else { return Ok(()) };
        let id = netns.device_and_inode();
        if place.netns != Some(id) || self.guarded.values().any(same) {
            return Ok(());
        }
        match self.netfilter.as_mut().filter(|_| id == self.own_netns) {
            Some(netfilter) => netfilter.remove(&place.interface.name)?,
            None => self.use_table(id, NftFamily::Inet),
        }
        self.write_tables(nft_table, &netns)
    }
}
