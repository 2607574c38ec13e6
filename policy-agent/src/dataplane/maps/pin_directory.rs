//! The layout of the pin directory.
//!
//! ```text
//! <bpffs>/v<ABI>/maps/SANDBOXES …       by name
//! <bpffs>/v<ABI>/links/<id>/from        links of a sandbox: from, to, xdp. With clsact: programs
//! <bpffs>/v<ABI>/links/slot-<hex>/from  links of an interface of `[[interfaces]]`, for any sandbox
//! <bpffs>/v<ABI>/links/<id>/slot7       an empty directory: the slot that the gates set
//! <bpffs>/v<ABI>/gates/7/from           gates of a slot: from, to, xdp, and spares
//! <bpffs>/v<ABI>/guard/                 the guard: its records, map and links
//! ```

use std::{
    fs, io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use policy_common::ABI_VERSION;

use crate::dataplane::{Slot, maps::bpf_syscall, tables::grace_period::GracePeriod};

/// Maximum number of attempts to pin an object if its directory is removed concurrently.
const PIN_ATTEMPTS: usize = 5;
/// Maximum number of slots whose gates are freed at once.
const MAX_SLOTS_FREED_AT_ONCE: usize = 64;
/// Prefix of the directory that records a slot.
const SLOT_DIRECTORY_PREFIX: &str = "slot";

/// Exclusive access to the pins while it exists.
pub(crate) type PinLock = Flock<fs::File>;

/// Takes exclusive access to the pins under `bpffs`. Otherwise two agents with different state
/// directories would each remove the other's sandboxes as stale.
pub(crate) fn lock_pins(bpffs: &Path) -> Result<PinLock> {
    let shown = bpffs.display();
    let directory = fs::File::open(bpffs).with_context(|| format!("cannot open {shown}"))?;
    match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
        Ok(owner) => Ok(owner),
        Err((_, Errno::EWOULDBLOCK)) => {
            bail!("another agent has its pins in {shown}: stop it, or give --bpffs another place")
        }
        Err((_, error)) => Err(error).with_context(|| format!("cannot lock {shown}")),
    }
}

/// The pins of one ABI version.
#[derive(Clone, Debug)]
pub(crate) struct PinDirectory {
    root: PathBuf,
}

impl PinDirectory {
    /// The pins of this version under `bpffs`. Creates missing directories.
    pub(crate) fn create(bpffs: &Path) -> Result<Self> {
        let pins = Self { root: bpffs.join(format!("v{ABI_VERSION}")) };
        pins.create_directories()?;
        Ok(pins)
    }

    /// Creates missing directories.
    pub(crate) fn create_directories(&self) -> Result<()> {
        for directory in [self.maps_directory(), self.links_directory()] {
            fs::create_dir_all(&directory).with_context(|| {
                format!("cannot make {}: is that on a BPF file system?", directory.display())
            })?;
        }
        Ok(())
    }

    /// The pins of every version that exists.
    pub(crate) fn all_versions(bpffs: &Path) -> Result<Vec<Self>> {
        let is_version =
            |name: &str| name.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
        let names = directory_entries(bpffs)?.into_iter().filter(|name| is_version(name));
        Ok(names.map(|name| Self { root: bpffs.join(name) }).collect())
    }

    /// Whether these are the pins of the running version.
    pub(crate) fn is_current(&self) -> bool {
        self.root.file_name().is_some_and(|name| name == format!("v{ABI_VERSION}").as_str())
    }

    /// The pin of a map.
    pub(crate) fn map_path(&self, name: &str) -> PathBuf {
        self.maps_directory().join(name)
    }

    fn maps_directory(&self) -> PathBuf {
        self.root.join("maps")
    }

    fn gates_directory(&self) -> PathBuf {
        self.root.join("gates")
    }

    fn links_directory(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The directory of the records of installed programs.
    pub(crate) fn programs_directory(&self) -> PathBuf {
        self.root.join("programs")
    }

    /// The directory of the guard.
    pub(crate) fn guard_directory(&self) -> PathBuf {
        self.root.join("guard")
    }

    /// Removes the directory of the guard. Its links are detached when this returns.
    pub(crate) fn remove_guard(&self) -> Result<()> {
        remove_tree(&self.guard_directory())
    }

    /// The pin of a link of a sandbox.
    pub(crate) fn link_path(&self, id: &str, name: &str) -> PathBuf {
        self.links_directory().join(id).join(name)
    }

    /// The pin of a gate of a slot. Creates its directory.
    pub(crate) fn gate_path(&self, slot: Slot, name: &str) -> Result<PathBuf> {
        let directory = self.gates_directory().join(slot.get().to_string());
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory.join(name))
    }

    /// The names of all sandboxes and interfaces that have links.
    pub(crate) fn pin_names(&self) -> Result<Vec<String>> {
        directory_entries(&self.links_directory())
    }

    /// Creates the directory for a sandbox's links.
    pub(crate) fn create_link_directory(&self, id: &str) -> Result<()> {
        let directory = self.links_directory().join(id);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))
    }

    /// Records the slot that all gates of a sandbox set.
    pub(crate) fn record_slot(&self, id: &str, slot: Slot) -> Result<()> {
        let mine =
            self.links_directory().join(id).join(format!("{SLOT_DIRECTORY_PREFIX}{}", slot.get()));
        fs::create_dir_all(&mine).with_context(|| format!("cannot make {}", mine.display()))
    }

    /// Removes the record of a sandbox's slot, before some of its gates are replaced.
    pub(crate) fn clear_recorded_slot(&self, id: &str) -> Result<()> {
        let directory = self.links_directory().join(id);
        for name in directory_entries(&directory)?
            .iter()
            .filter(|name| name.starts_with(SLOT_DIRECTORY_PREFIX))
        {
            let note = directory.join(name);
            ignore_not_found(fs::remove_dir(&note), &note)?;
        }
        Ok(())
    }

    /// The recorded slot of a sandbox's gates.
    pub(crate) fn recorded_slot(&self, id: &str) -> Result<Option<Slot>> {
        let names = directory_entries(&self.links_directory().join(id))?;
        let number =
            names.iter().find_map(|name| name.strip_prefix(SLOT_DIRECTORY_PREFIX)?.parse().ok());
        Ok(number.and_then(Slot::new))
    }

    /// Removes one pin and detaches its link. Succeeds if there is none.
    ///
    /// The kernel releases a link asynchronously after its pin is removed. Detaching it first means
    /// that it is detached when this returns. It also avoids releasing thousands of links at once,
    /// at which Linux up to at least 6.18 can deadlock. For the same reason the last descriptor is
    /// closed here.
    pub(crate) fn remove_link(&self, id: &str, name: &str) -> Result<()> {
        remove_pin(&self.link_path(id, name))
    }

    /// Removes a sandbox's links. They are detached when this returns.
    pub(crate) fn remove_links(&self, id: &str) -> Result<()> {
        let directory = self.links_directory().join(id);
        for name in directory_entries(&directory)?
            .iter()
            .filter(|name| !name.starts_with(SLOT_DIRECTORY_PREFIX))
        {
            self.remove_link(id, name)?;
        }
        ignore_not_found(fs::remove_dir_all(&directory), &directory)
    }

    /// Removes everything. Links are removed first, because a gate whose program array is empty
    /// drops all packets.
    pub(crate) fn remove_all(&self) -> Result<()> {
        for id in self.pin_names()? {
            self.remove_links(&id)?;
        }
        self.remove_gates()?;
        self.remove_guard()?;
        ignore_not_found(fs::remove_dir_all(&self.root), &self.root)
    }

    /// Removes all gates, some at a time: Linux up to at least 6.18 can deadlock when a thousand
    /// programs are freed at once.
    fn remove_gates(&self) -> Result<()> {
        let directory = self.gates_directory();
        let slots = directory_entries(&directory)?;
        if slots.is_empty() {
            return Ok(());
        }
        let grace_period = GracePeriod::new()?;
        for slots in slots.chunks(MAX_SLOTS_FREED_AT_ONCE) {
            for slot in slots {
                let gates = directory.join(slot);
                ignore_not_found(fs::remove_dir_all(&gates), &gates)?;
            }
            // The first frees them, and the second lets the kernel finish that.
            grace_period.wait()?;
            grace_period.wait()?;
        }
        Ok(())
    }
}

/// Removes a pin. If it is a link, detaches it first.
pub(crate) fn remove_pin(pin: &Path) -> Result<()> {
    let last = bpf_syscall::open_pinned(pin).ok();
    if let Some(link) = &last {
        let _ = bpf_syscall::detach_link(link); // fails for what is not a link
    }
    let removed = ignore_not_found(fs::remove_file(pin), pin);
    drop(last);
    removed
}

/// Removes a directory with all pins below it.
pub(crate) fn remove_tree(directory: &Path) -> Result<()> {
    for name in directory_entries(directory)? {
        let path = directory.join(name);
        if path.is_dir() { remove_tree(&path)? } else { remove_pin(&path)? }
    }
    ignore_not_found(fs::remove_dir(directory), directory)
}

/// Pins a map, a link or a program. Creates the directory again if it is removed concurrently.
pub(crate) fn pin_with_retry(object: BorrowedFd<'_>, pin: &Path) -> Result<()> {
    let mut pinned = bpf_syscall::pin_object(object, pin);
    for _ in 1..PIN_ATTEMPTS {
        match (&pinned, pin.parent()) {
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::create_dir_all(directory); // the next attempt reports errors
                pinned = bpf_syscall::pin_object(object, pin);
            }
            _ => break,
        }
    }
    pinned.with_context(|| format!("cannot pin {}", pin.display()))
}

/// The names in a directory. Empty if it does not exist.
pub(crate) fn directory_entries(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", directory.display()));
        }
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    Ok(names)
}

/// Ignores that `path` did not exist.
fn ignore_not_found(removed: io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
