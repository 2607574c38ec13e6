//! The guard in the agent's own network namespace: links of netfilter for both families, and the map
//! with the names of guarded interfaces, all pinned.
//!
//! ```text
//! <bpffs>/v<ABI>/guard/netns-<inode>/interfaces            the map
//! <bpffs>/v<ABI>/guard/netns-<inode>/ipv4-10000000-1       a link, with mark and program version
//! ```
//!
//! A link keeps its namespace alive. So the namespaces of sandboxes, which come and go, have a table
//! of nftables instead, which goes with its namespace.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, MapData, MapError};
use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_HASH};
use policy_common::{
    endpoint::MAX_SANDBOXES,
    guard::{GuardedInterface, GuardedInterfaceKey, INTERFACE_NAME_LENGTH},
};

use super::{
    GUARD_PRIORITY,
    guard_program::{self, GUARD_PROGRAM_VERSION},
    netfilter_syscall,
};
use crate::dataplane::{
    Slot,
    maps::{
        bpf_syscall,
        pin_directory::{self, PinDirectory},
        pinned_maps,
    },
    net::netns::NetnsHandle,
};

const MAP_PIN: &str = "interfaces";
/// Names in pins, and `NFPROTO_*` of linux/netfilter.h.
const FAMILIES: [(&str, u32); 2] = [("ipv4", 2), ("ipv6", 10)];
const NAMESPACE_PREFIX: &str = "netns-";

/// The guard of one network namespace.
pub(super) struct NetfilterGuard {
    /// Held so that removed pins can be restored.
    pinned: Vec<(PathBuf, OwnedFd)>,
    interfaces: HashMap<MapData, GuardedInterfaceKey, GuardedInterface>,
}

impl NetfilterGuard {
    /// Adopts or creates the guard of the calling thread's namespace. Removes those of other
    /// namespaces and with other marks.
    pub(super) fn open(pins: &PinDirectory, namespace: &NetnsHandle, mark: u32) -> Result<Self> {
        let (_, inode) = namespace.device_and_inode();
        let own = format!("{NAMESPACE_PREFIX}{inode}");
        remove_namespaces(pins, |name| name != own)?;
        let directory = pins.guard_directory().join(own);
        let map_pin = directory.join(MAP_PIN);
        if !map_pin.exists() {
            pin_directory::remove_tree(&directory)?; // links of a map that is gone
            create_directory(&directory)?;
            create_map(&map_pin)?;
        }
        let mut pinned = vec![(map_pin.clone(), bpf_syscall::open_pinned(&map_pin)?)];
        pinned.extend(open_links(&directory, mark, &pinned[0].1)?);
        for name in pin_directory::directory_entries(&directory)? {
            let pin = directory.join(name);
            if pinned.iter().all(|(kept, _)| *kept != pin) {
                pin_directory::remove_pin(&pin)?;
            }
        }
        let interfaces = pinned_maps::open_pinned_map(&map_pin)?.try_into()?;
        Ok(Self { pinned, interfaces })
    }

    /// Guards an interface. Its count starts again if it has another slot now.
    pub(super) fn insert(&mut self, name: &str, slot: Option<Slot>) -> Result<()> {
        let key = interface_key(name);
        match self.interfaces.get(&key, 0) {
            Ok(entry) if slot.is_none_or(|slot| entry.slot == slot.get()) => Ok(()),
            Ok(_) | Err(MapError::KeyNotFound) => {
                let slot = slot.map_or(0, Slot::get);
                let entry = GuardedInterface { slot, ..GuardedInterface::default() };
                self.interfaces.insert(key, entry, 0).context("cannot guard the interface")
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stops guarding an interface. Succeeds if it is not guarded.
    pub(super) fn remove(&mut self, name: &str) -> Result<()> {
        match self.interfaces.remove(&interface_key(name)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
            {
                Ok(())
            }
            Err(error) => Err(error).context("cannot stop guarding the interface"),
        }
    }

    /// Stops guarding all interfaces but these.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&str) -> bool) -> Result<()> {
        let keys: Vec<_> = self.interfaces.keys().collect::<Result<_, _>>()?;
        let names = keys.iter().map(|key| String::from_utf8_lossy(key));
        let names: Vec<String> = names.map(|name| name.trim_end_matches('\0').to_owned()).collect();
        names.iter().filter(|name| !is_kept(name)).try_for_each(|name| self.remove(name))
    }

    /// Packets and bytes that the guard dropped at an interface.
    pub(super) fn dropped(&self, name: &str) -> Result<(u64, u64)> {
        match self.interfaces.get(&interface_key(name), 0) {
            Ok(entry) => Ok((entry.packets, entry.bytes)),
            Err(MapError::KeyNotFound) => Ok((0, 0)),
            Err(error) => Err(error.into()),
        }
    }

    /// Restores pins that have been removed.
    pub(super) fn restore_missing_pins(&self) -> Result<()> {
        for (pin, object) in &self.pinned {
            if !pin.exists() {
                pin_directory::pin_with_retry(object.as_fd(), pin)?;
                tracing::warn!("{} was gone: pinned again", pin.display());
            }
        }
        Ok(())
    }
}

/// Removes the guards of namespaces whose directory has such a name.
pub(super) fn remove_namespaces(
    pins: &PinDirectory,
    is_removed: impl Fn(&str) -> bool,
) -> Result<()> {
    let directory = pins.guard_directory();
    let mut names = pin_directory::directory_entries(&directory)?;
    names.retain(|name| name.starts_with(NAMESPACE_PREFIX) && is_removed(name));
    names.iter().try_for_each(|name| pin_directory::remove_tree(&directory.join(name)))
}

fn create_directory(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))
}

fn create_map(pin: &Path) -> Result<()> {
    let (key, value) = (size_of::<GuardedInterfaceKey>(), size_of::<GuardedInterface>());
    let shape = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_HASH as u32,
        u32::try_from(key)?,
        u32::try_from(value)?,
        2 * MAX_SANDBOXES, // an interface that is replaced by another has an entry until then
        BPF_F_NO_PREALLOC,
    );
    let map = MapData::create(shape, "policy_guard", None)?;
    pin_directory::pin_with_retry(map.fd().as_fd(), pin)
}

/// Opens the pinned links of both families, or creates them.
fn open_links(directory: &Path, mark: u32, map: &OwnedFd) -> Result<Vec<(PathBuf, OwnedFd)>> {
    let pins = FAMILIES.map(|(name, family)| {
        (directory.join(format!("{name}-{mark:08x}-{GUARD_PROGRAM_VERSION}")), family)
    });
    if pins.iter().all(|(pin, _)| pin.exists()) {
        let open = |(pin, _): (PathBuf, u32)| Ok((pin.clone(), bpf_syscall::open_pinned(&pin)?));
        return pins.into_iter().map(open).collect();
    }
    let program = guard_program::load_guard(mark, map.as_fd())?;
    let mut links = Vec::new();
    for (pin, family) in pins {
        let link = netfilter_syscall::attach_at_prerouting(program.as_fd(), family, GUARD_PRIORITY)
            .context("cannot attach the guard")?;
        pin_directory::remove_pin(&pin)?;
        pin_directory::pin_with_retry(link.as_fd(), &pin)?;
        links.push((pin, link));
    }
    Ok(links)
}

fn interface_key(name: &str) -> GuardedInterfaceKey {
    let mut key = [0; INTERFACE_NAME_LENGTH];
    for (to, from) in key.iter_mut().zip(name.bytes().take(INTERFACE_NAME_LENGTH - 1)) {
        *to = from;
    }
    key
}
