//! Doing something in another network namespace.
//!
//! `setns` changes the calling thread only, so the work runs on a thread of its own, which ends
//! with it: nothing can be left behind in the wrong namespace. The mount namespace stays, and with
//! it the BPF file system.

use std::{fs::File, path::Path, thread};

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CloneFlags, setns};

/// Runs `work` in the namespace at `path`, or right here if there is none.
pub fn within<T: Send>(path: Option<&Path>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(path) = path else { return work() };
    let namespace = File::open(path)
        .with_context(|| format!("netns: cannot open the network namespace {}", path.display()))?;
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)
                .with_context(|| format!("netns: cannot enter {}", path.display()))?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the thread in {} panicked", path.display()))?
    })
}
