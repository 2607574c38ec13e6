//! Doing something in another network namespace.
//!
//! `setns` changes the calling thread only, so the work runs on a thread of its own, which ends
//! with it: nothing can be left behind in the wrong namespace. The mount namespace stays, and with
//! it the BPF file system.

use std::{fs::File, os::unix::fs::MetadataExt as _, path::Path, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// The calling thread's own namespace.
const OWN_NETNS_PATH: &str = "/proc/thread-self/ns/net";

/// Runs `work` in the namespace at `path`, or right here if there is none.
pub fn run_in_netns<T: Send>(
    path: Option<&Path>,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    match path {
        Some(_) => NetnsHandle::open(path)?.run_inside(work),
        None => work(),
    }
}

/// A network namespace, which lives at least as long as this.
pub(crate) struct NetnsHandle {
    file: File,
    name: String,
    /// What tells it from all others that live: device and inode of its file.
    device_and_inode: (u64, u64),
}

impl NetnsHandle {
    /// The namespace at `path`, or the calling thread's own if there is none.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let path = path.unwrap_or(Path::new(OWN_NETNS_PATH));
        let name = path.display().to_string();
        let file = File::open(path)
            .with_context(|| format!("netns: cannot open the network namespace {name}"))?;
        let metadata = file.metadata()?;
        Ok(Self { file, name, device_and_inode: (metadata.dev(), metadata.ino()) })
    }

    /// Runs `work` inside, on a thread of its own.
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

    /// Whether both are the same.
    pub(crate) fn is_same_netns(&self, other: &Self) -> bool {
        self.device_and_inode == other.device_and_inode
    }
}
