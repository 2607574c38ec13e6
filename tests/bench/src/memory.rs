//! Measures the memory of the kernel's maps with one sandbox under a large policy, and with 1000
//! sandboxes.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::maps::{MapInfo, loaded_maps};
use policy_agent::dataplane::{DenyAction, Slot};

use super::{BenchProfile, ResultTable, prefix_lists::PrefixLists, result_table::at_most_target};
use crate::dataplane::open_dataplane;
use policy_testbed::network::BpffsDirectory;

const SANDBOXES: u32 = 1_000;

/// Measures memory.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Reject)?;
    let empty = pinned_map_bytes(bpffs.path())?;
    let size = effort.policy_sizes[2];
    let compiled = PrefixLists::new(size / 2, size - size / 2, 8).compile(&[])?;
    let slots = sandbox_slots();
    let one = map_memory_growth(|| dataplane.publish(&slots[..1], &compiled))?;
    let begin = Instant::now();
    let others = map_memory_growth(|| dataplane.publish(&slots, &compiled))?;
    let taken = begin.elapsed().as_secs_f64() * 1e3;
    let columns = ["sandboxes under one policy", "MiB of tables", "target"];
    let mut table = ResultTable::new(&format!("Memory of a policy of {size} entries"), &columns);
    let mebibytes = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    let target = at_most_target((one + others) / one, 1.5, "× one");
    table.add_row(["1".to_owned(), mebibytes(one), String::new()]);
    table.add_row([SANDBOXES.to_string(), mebibytes(one + others), target]);
    table.add_row(["(maps that are always there)".to_owned(), mebibytes(empty), String::new()]);
    table.add_row([format!("(publishing to {SANDBOXES}: {taken:.0} ms)")]);
    Ok(vec![table])
}

/// The slots of all sandboxes. Slots can share a policy without an endpoint.
fn sandbox_slots() -> Vec<Slot> {
    (1..=SANDBOXES).filter_map(Slot::new).collect()
}

/// Returns how many bytes the machine's maps grow while `act` runs.
fn map_memory_growth<T>(act: impl FnOnce() -> Result<T>) -> Result<f64> {
    let before = locked_map_bytes();
    act()?;
    Ok(locked_map_bytes() - before)
}

/// The bytes of all maps on the machine, as the kernel accounts for them.
fn locked_map_bytes() -> f64 {
    // Skips maps that are freed meanwhile.
    loaded_maps().filter_map(Result::ok).filter_map(|map| map_bytes(&map).ok()).sum()
}

/// The bytes of the maps pinned below a directory.
fn pinned_map_bytes(directory: &Path) -> Result<f64> {
    let mut bytes = 0.0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            bytes += pinned_map_bytes(&entry.path())?;
        } else {
            bytes += MapInfo::from_pin(entry.path()).ok().map_or(Ok(0.0), |map| map_bytes(&map))?;
        }
    }
    Ok(bytes)
}

fn map_bytes(map: &MapInfo) -> Result<f64> {
    let fd = map.fd()?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line.context("the kernel tells the size of a map")?.trim().parse()?)
}
