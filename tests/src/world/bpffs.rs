//! A BPF file system to pin in: the machine's, or one mounted for this run only.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::programs::links::PinnedLink;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use tempfile::TempDir;

use super::name;

const USUAL: &str = "/sys/fs/bpf";

/// A directory of its own below a BPF file system; removed on drop.
pub struct Bpffs {
    directory: PathBuf,
    mounted: Option<TempDir>,
}

impl Bpffs {
    /// Takes the machine's BPF file system, or mounts one in a temporary directory.
    pub fn find() -> Result<Self> {
        let mounted = if is_bpf(Path::new(USUAL)) { None } else { Some(mount_own()?) };
        let root = mounted.as_ref().map_or(Path::new(USUAL), TempDir::path);
        Ok(Self { directory: root.join(name::unique("pins")), mounted })
    }

    /// The agent's directory. It makes it itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where a file system was mounted for this run, if one was.
    pub fn mounted(&self) -> Option<&Path> {
        self.mounted.as_ref().map(TempDir::path)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        unpin(&self.directory);
        if self.directory.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.directory)
        {
            eprintln!("pins are left behind in {}: {error}", self.directory.display());
        }
        if let Some(mounted) = &self.mounted
            && let Err(errno) = umount2(mounted.path(), MntFlags::MNT_DETACH)
        {
            eprintln!("{} stays mounted: {errno}", mounted.path().display());
        }
    }
}

/// Removes the pins below a directory. Links are off when this returns, one by one, as the last descriptor
/// of each is closed: see `docs/kernel-support.md` for what can happen to a kernel that has to let
/// thousands go at once.
pub fn unpin(directory: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            unpin(&path);
        } else if let Ok(pinned) = PinnedLink::from_pin(&path) {
            drop(pinned.unpin());
        }
    }
}

fn is_bpf(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
}

fn mount_own() -> Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(&name::unique("bpf")).tempdir()?;
    let kind = Some("bpf");
    mount(kind, directory.path(), kind, MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting a BPF file system on {}", directory.path().display()))?;
    Ok(directory)
}
