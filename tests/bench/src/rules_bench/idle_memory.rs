//! Measures the memory of idle connections that are opened.

use std::{thread, time::Duration};

use anyhow::Result;

use super::{
    super::{
        BenchProfile, ResultTable, proxy_bench::resource_usage::MemoryUsage,
        result_table::at_most_target,
    },
    rule_setup::{RuleSetup, RuleVariant},
};

/// The number of sandboxes that share the connections. One may have 256 at most.
const SANDBOXES: usize = 4;
/// The idle time before the memory is measured.
const SETTLE_TIME: Duration = Duration::from_secs(2);
/// The limit on the proxy's memory for a connection, in KiB.
const MEMORY_TARGET_KIB: f64 = 40.0;

/// Measures once per proxy, each newly started.
pub(super) fn run(effort: &BenchProfile) -> Result<ResultTable> {
    let of_each = effort.idle_connections / 10 / SANDBOXES;
    let title = format!("{} idle connections with a header rule", of_each * SANDBOXES);
    let columns = ["memory of the proxy", "MiB before", "MiB with them", "KiB each", "target"];
    let mut table = ResultTable::new(&title, &columns);
    for variant in RuleVariant::ALL {
        let lane = RuleSetup::build(variant, SANDBOXES)?;
        let [before, after] = measure_idle_memory(&lane, of_each)?;
        let each = (after - before) * 1024.0 / (of_each * SANDBOXES) as f64;
        let target = match variant {
            RuleVariant::Agent => at_most_target(each, MEMORY_TARGET_KIB, "KiB"),
            _ => String::new(),
        };
        let [before, after, each] = [before, after, each].map(|value| format!("{value:.1}"));
        table.add_row([variant.name().to_owned(), before, after, each, target]);
    }
    Ok(table)
}

/// The proxy's memory in MiB, before and with the connections.
fn measure_idle_memory(lane: &RuleSetup, of_each: usize) -> Result<[f64; 2]> {
    let pids = lane.relay_pids();
    // What starting took is returned by then.
    thread::sleep(SETTLE_TIME);
    let before = MemoryUsage::now(&pids)?.processes;
    let mut clients = Vec::new();
    for sandbox in &lane.sandboxes {
        for _ in 0..of_each {
            clients.push(lane.open_client(sandbox)?);
        }
    }
    thread::sleep(SETTLE_TIME);
    let after = MemoryUsage::now(&pids)?.processes;
    // A connection that was closed meanwhile would count as one without memory.
    for client in &mut clients {
        client.send_request()?;
    }
    Ok([before, after])
}
