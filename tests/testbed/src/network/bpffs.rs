//! A BPF file system for pins: the machine's, or one mounted for this run only.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::programs::links::PinnedLink;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tempfile::TempDir;

use super::unique_names;

const SYSTEM_BPFFS: &str = "/sys/fs/bpf";

/// A directory in a BPF file system, removed on drop.
pub struct BpffsDirectory {
    directory: PathBuf,
    own_mount: Option<TempDir>,
}

impl BpffsDirectory {
    /// Uses the machine's BPF file system, or mounts one in a temporary directory.
    pub fn create() -> Result<Self> {
        let mounted =
            if is_bpffs(Path::new(SYSTEM_BPFFS)) { None } else { Some(mount_temporary()?) };
        let root = mounted.as_ref().map_or(Path::new(SYSTEM_BPFFS), TempDir::path);
        Ok(Self { directory: root.join(unique_names::unique_name("pins")), own_mount: mounted })
    }

    /// The agent's directory, which the agent creates.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The mount point of a file system mounted for this run, if any.
    pub fn own_mount(&self) -> Option<&Path> {
        self.own_mount.as_ref().map(TempDir::path)
    }
}

impl Drop for BpffsDirectory {
    fn drop(&mut self) {
        restore_rcu_setting(&self.directory);
        remove_pins(&self.directory);
        if self.directory.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.directory)
        {
            eprintln!("pins are left behind in {}: {error}", self.directory.display());
        }
        if let Some(mounted) = &self.own_mount
            && let Err(errno) = umount2(mounted.path(), MntFlags::MNT_DETACH)
        {
            eprintln!("{} stays mounted: {errno}", mounted.path().display());
        }
    }
}

/// Removes the pins below a directory. When this returns, the links are detached, one by one, as
/// the last descriptor of each is closed. `docs/kernel-support.md` describes what can happen to a
/// kernel that must release thousands at once.
pub fn remove_pins(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            remove_pins(&path);
        } else if let Ok(pinned) = PinnedLink::from_pin(&path) {
            drop(pinned.unpin());
        }
    }
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_temporary() -> Result<TempDir> {
    let directory = unique_names::unique_directory("bpf")?;
    let kind = Some("bpf");
    mount(kind, directory.path(), kind, MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting a BPF file system on {}", directory.path().display()))?;
    Ok(directory)
}

/// Restores the setting that a killed agent may have left: it marks its pins while it changes it.
fn restore_rcu_setting(directory: &Path) {
    if directory.join("rcu_expedited").exists()
        && let Err(error) = std::fs::write("/sys/kernel/rcu_expedited", "0")
    {
        eprintln!("the kernel's grace periods stay expedited: {error}");
    }
}
