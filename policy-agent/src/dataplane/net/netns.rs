//! Runs code in another network namespace.
//!
//! `setns` only affects the calling thread, so the code runs on its own thread, which then ends. No
//! thread remains in the wrong namespace. The mount namespace, and with it the BPF file system,
//! stays the same.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// The calling thread's own namespace.
const OWN_NETNS_PATH: &str = "/proc/thread-self/ns/net";

/// Runs `work` in the namespace at `path`, or in the calling thread if there is none.
pub fn run_in_netns<T: Send>(
    path: Option<&Path>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match path {
        Some(_) => NetnsHandle::open(path)?.run_inside(work),
        None => work(),
    }
}

/// A handle that keeps a network namespace alive.
pub(crate) struct NetnsHandle {
    file: File,
    name: String,
    /// Device and inode of its file, which are unique among live namespaces.
    device_and_inode: (u64, u64),
}

impl NetnsHandle {
    /// Opens the namespace at `path`, or that of the calling thread if there is none.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.unwrap_or(Path::new(OWN_NETNS_PATH));
        let name = path.display().to_string();
        let file = File::open(path)
            .with_context(|| format!("netns: cannot open the network namespace {name}"))?;
        let metadata = file.metadata()?;
        Ok(Self { file, name, device_and_inode: (metadata.dev(), metadata.ino()) })
    }

    /// Runs `work` in the namespace, on a new thread.
    pub(crate) fn run_inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let name = &self.name;
        thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("netns: cannot enter {name}"))?;
                work()
            });
            thread.join().map_err(|_| anyhow!("the thread in {name} panicked"))?
        })
    }

    /// Device and inode of its file.
    pub(crate) fn device_and_inode(&self) -> (u64, u64) {
        self.device_and_inode
    }

    /// Whether both handles refer to the same namespace.
    pub(crate) fn is_same_netns(&self, other: &Self) -> bool {
        self.device_and_inode == other.device_and_inode
    }
}
