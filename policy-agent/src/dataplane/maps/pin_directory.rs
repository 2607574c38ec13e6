//! Where things are pinned.
//!
//! ```text
//! <bpffs>/v1/maps/SANDBOXES …       by name; v1 is the ABI's version
//! <bpffs>/v1/links/<id>/from        tcx links of a sandbox: from, to; xdp. With clsact the programs
//! <bpffs>/v1/links/slot-<hex>/from  those of an interface of `[[interfaces]]`, whoever has it
//! <bpffs>/v1/links/<id>/slot7       an empty directory: the slot that its gates name
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

use crate::dataplane::{Slot, maps::bpf_syscall};

/// How often something is pinned whose directory somebody removes meanwhile.
const PIN_ATTEMPTS: usize = 5;
/// Begins the name of the directory that notes a slot.
const SLOT_DIRECTORY_PREFIX: &str = "slot";

/// The right to change what is pinned, as long as this lives.
pub(crate) type PinLock = Flock<fs::File>;

/// Takes the right to change what is pinned under `bpffs`: of two agents with different state
/// directories, each would take the other's sandboxes for left over.
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
pub struct PinDirectory {
    root: PathBuf,
}

impl PinDirectory {
    /// The pins of this version under `bpffs`, whose directories are made if they are missing.
    pub fn create(bpffs: &Path) -> Result<Self> {
        let pins = Self { root: bpffs.join(format!("v{ABI_VERSION}")) };
        pins.create_directories()?;
        Ok(pins)
    }

    /// Makes the directories that are missing.
    pub fn create_directories(&self) -> Result<()> {
        for directory in [self.maps_directory(), self.links_directory()] {
            fs::create_dir_all(&directory).with_context(|| {
                format!("cannot make {}: is that on a BPF file system?", directory.display())
            })?;
        }
        Ok(())
    }

    /// The pins of every version that is there.
    pub fn all_versions(bpffs: &Path) -> Result<Vec<Self>> {
        let is_version =
            |name: &str| name.strip_prefix('v').is_some_and(|digits| digits.parse::<u32>().is_ok());
        let names = directory_entries(bpffs)?.into_iter().filter(|name| is_version(name));
        Ok(names.map(|name| Self { root: bpffs.join(name) }).collect())
    }

    /// Whether these are the pins of the running version.
    pub fn is_current(&self) -> bool {
        self.root.file_name().is_some_and(|name| name == format!("v{ABI_VERSION}").as_str())
    }

    /// The pin of a map.
    pub fn map_path(&self, name: &str) -> PathBuf {
        self.maps_directory().join(name)
    }

    fn maps_directory(&self) -> PathBuf {
        self.root.join("maps")
    }

    fn links_directory(&self) -> PathBuf {
        self.root.join("links")
    }

    /// The pin of a link of a sandbox.
    pub fn link_path(&self, id: &str, name: &str) -> PathBuf {
        self.links_directory().join(id).join(name)
    }

    /// The sandboxes that have links.
    pub fn pin_names(&self) -> Result<Vec<String>> {
        directory_entries(&self.links_directory())
    }

    /// Makes the directory of a sandbox's links.
    pub fn create_link_directory(&self, id: &str) -> Result<()> {
        let directory = self.links_directory().join(id);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))
    }

    /// Notes which slot a sandbox's gates name: all of them, from now on.
    pub fn record_slot(&self, id: &str, slot: Slot) -> Result<()> {
        let mine =
            self.links_directory().join(id).join(format!("{SLOT_DIRECTORY_PREFIX}{}", slot.get()));
        fs::create_dir_all(&mine).with_context(|| format!("cannot make {}", mine.display()))
    }

    /// Forgets which slot a sandbox's gates name, while some may name another already.
    pub fn clear_recorded_slot(&self, id: &str) -> Result<()> {
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

    /// The slot that a sandbox's gates were noted to name.
    pub fn recorded_slot(&self, id: &str) -> Result<Option<Slot>> {
        let names = directory_entries(&self.links_directory().join(id))?;
        let number =
            names.iter().find_map(|name| name.strip_prefix(SLOT_DIRECTORY_PREFIX)?.parse().ok());
        Ok(number.and_then(Slot::new))
    }

    /// Removes one pin; a link is detached when this returns. It is no error when it is not there.
    ///
    /// The kernel leaves it to a worker of its own to let go of a link whose pin is removed. Detached
    /// by us, callers know that it is off, and thousands of links do not go all at once: Linux up to
    /// at least 6.18 can deadlock over that many programs. For the same reason the last descriptor is
    /// closed by us.
    pub fn remove_link(&self, id: &str, name: &str) -> Result<()> {
        let pin = self.link_path(id, name);
        let last = bpf_syscall::open_pinned(&pin).ok();
        if let Some(link) = &last {
            let _ = bpf_syscall::detach_link(link); // a program that is pinned is no link
        }
        let removed = ignore_not_found(fs::remove_file(&pin), &pin);
        drop(last);
        removed
    }

    /// Removes a sandbox's links, which are detached when this returns.
    pub fn remove_links(&self, id: &str) -> Result<()> {
        let directory = self.links_directory().join(id);
        for name in directory_entries(&directory)?
            .iter()
            .filter(|name| !name.starts_with(SLOT_DIRECTORY_PREFIX))
        {
            self.remove_link(id, name)?;
        }
        ignore_not_found(fs::remove_dir_all(&directory), &directory)
    }

    /// Removes everything: links first, since a gate without its table is shut.
    pub fn remove_all(&self) -> Result<()> {
        for id in self.pin_names()? {
            self.remove_links(&id)?;
        }
        ignore_not_found(fs::remove_dir_all(&self.root), &self.root)
    }
}

/// Pins a map, a link or a program. Its directory is made again where somebody removes it meanwhile.
pub(crate) fn pin_with_retry(object: BorrowedFd<'_>, pin: &Path) -> Result<()> {
    let mut pinned = bpf_syscall::pin_object(object, pin);
    for _ in 1..PIN_ATTEMPTS {
        match (&pinned, pin.parent()) {
            (Err(error), Some(directory)) if error.kind() == io::ErrorKind::NotFound => {
                let _ = fs::create_dir_all(directory); // whether it is there, the next attempt says
                pinned = bpf_syscall::pin_object(object, pin);
            }
            _ => break,
        }
    }
    pinned.with_context(|| format!("cannot pin {}", pin.display()))
}

/// Names in a directory; none if it is not there.
fn directory_entries(directory: &Path) -> Result<Vec<String>> {
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

/// What was removed may have been gone already.
fn ignore_not_found(removed: io::Result<()>, path: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
