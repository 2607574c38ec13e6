//! The memory of the kernel's maps with one sandbox under a large policy, and with a thousand.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapInfo, loaded_maps};
use policy_agent::dataplane::{DenyAction, Inbound, Slot};

use super::{Effort, Table, lists::Lists, report::at_most};
use crate::{kernel, world::Bpffs};

const SANDBOXES: u32 = 1_000;

/// Measures memory.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let bpffs = Bpffs::find()?;
    let dataplane = kernel::open(&bpffs, DenyAction::Reject, Inbound::Any)?;
    let empty = pinned(bpffs.directory())?;
    let size = effort.sizes[2];
    let compiled = Lists::new(size / 2, size - size / 2, 8).compiled(&[])?;
    let slots = slots();
    let one = grown(|| dataplane.publish(&slots[..1], &compiled))?;
    let begin = Instant::now();
    let others = grown(|| dataplane.publish(&slots, &compiled))?;
    let taken = begin.elapsed().as_secs_f64() * 1e3;
    let columns = ["sandboxes under one policy", "MiB of tables", "target"];
    let mut table = Table::new(&format!("Memory of a policy of {size} entries"), &columns);
    let mebibytes = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    let target = at_most((one + others) / one, 1.5, "× one");
    table.row(["1".to_owned(), mebibytes(one), String::new()]);
    table.row([SANDBOXES.to_string(), mebibytes(one + others), target]);
    table.row(["(maps that are always there)".to_owned(), mebibytes(empty), String::new()]);
    table.row([format!("(publishing to {SANDBOXES}: {taken:.0} ms)")]);
    Ok(vec![table])
}

/// The slots of all sandboxes. Those need no identity to share a policy.
fn slots() -> Vec<Slot> {
    (1..=SANDBOXES).filter_map(Slot::new).collect()
}

/// By how many bytes the machine's maps grow while something is done.
fn grown<T>(act: impl FnOnce() -> Result<T>) -> Result<f64> {
    let before = locked();
    act()?;
    Ok(locked() - before)
}

/// Bytes that all maps of the machine take, as the kernel accounts for them.
fn locked() -> f64 {
    // One that goes while it is looked at does not count.
    loaded_maps().filter_map(Result::ok).filter_map(|map| of(&map).ok()).sum()
}

/// Bytes of the maps pinned below a directory.
fn pinned(directory: &Path) -> Result<f64> {
    let mut bytes = 0.0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += pinned(&entry.path())?;
        } else {
            bytes += MapInfo::from_pin(entry.path()).ok().map_or(Ok(0.0), |map| of(&map))?;
        }
    }
    Ok(bytes)
}

fn of(map: &MapInfo) -> Result<f64> {
    let fd = map.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("the kernel tells the size of a map")?.trim().parse()?)
}
