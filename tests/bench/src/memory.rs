//! Measures the memory of the kernel's maps with one sandbox under a large policy, and with 1000
//! sandboxes.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    time::Instant,
};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
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
    let table_bytes_of = |slots: &[Slot]| -> Result<f64> {
        dataplane.publish(slots, &compiled)?;
        Ok(f64::from(u32::try_from(dataplane.table_bytes())?))
    };
    let one = table_bytes_of(&slots[..1])?;
    let begin = Instant::now();
    let all = table_bytes_of(&slots)?;
    let taken = begin.elapsed().as_secs_f64() * 1e3;
    let columns = ["sandboxes under one policy", "MiB of tables", "target"];
    let mut table = ResultTable::new(&format!("Memory of a policy of {size} entries"), &columns);
    let mebibytes = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    let target = at_most_target(all / one, 1.5, "× one");
    table.add_row(["1".to_owned(), mebibytes(one), String::new()]);
    table.add_row([SANDBOXES.to_string(), mebibytes(all), target]);
    table.add_row(["(maps that are always there)".to_owned(), mebibytes(empty), String::new()]);
    table.add_row([format!("(publishing to {SANDBOXES}: {taken:.0} ms)")]);
    Ok(vec![table])
}

/// The slots of all sandboxes. Slots can share a policy without an endpoint.
fn sandbox_slots() -> Vec<Slot> {
    (1..=SANDBOXES).filter_map(Slot::new).collect()
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
