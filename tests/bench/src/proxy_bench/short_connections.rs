//! Measures the rate and latency of short connections.

use std::time::Duration;

use anyhow::Result;

use super::{
    super::{BenchProfile, ResultTable, result_table::met_label, rounds::medians_of_each},
    load_client,
    proxy_setup::{ProxySetup, ProxyVariant},
    resource_usage::CpuUsage,
};

/// The number of concurrent connections at the maximum rate.
const CONCURRENCY: usize = 64;
/// A rate per second that every setup can sustain.
const STEADY_RATE: u32 = 500;

/// Measures connections. Values at the maximum rate: rate, 99th percentile, the proxy's µs per
/// connection. Values at a steady rate: 50th and 99th percentile. Percentiles are in ms.
pub(crate) fn run(effort: &BenchProfile, lanes: &mut [ProxySetup]) -> Result<ResultTable> {
    let time = Duration::from_secs_f64(effort.seconds);
    let full = medians_of_each(effort.rounds, lanes, |lane| {
        let pids = lane.relay_pids();
        let before = CpuUsage::now(&pids)?;
        let flood = load_client::run_concurrent(lane, CONCURRENCY, time)?;
        let spent = before.spent_until(&CpuUsage::now(&pids)?);
        let each = spent.proxy * 1e6 / flood.count() as f64;
        Ok([flood.rate(), flood.percentile(99), each])
    })?;
    let steady = medians_of_each(effort.rounds, lanes, |lane| {
        let flood = load_client::run_at_rate(lane, STEADY_RATE, time)?;
        Ok([flood.percentile(50), flood.percentile(99)])
    })?;
    Ok(table(lanes, &full, &steady))
}

fn table(lanes: &[ProxySetup], full: &[[f64; 3]], steady: &[[f64; 2]]) -> ResultTable {
    let columns = [
        "short connections (of direct)",
        "64 at once, per s",
        "p99, ms",
        "the proxy, CPU µs each",
        "500 per s: p50, ms",
        "p99, ms",
        "target",
    ];
    let mut table = ResultTable::new("Proxied connections", &columns);
    for ((lane, &[rate, p99, each]), &[slow_p50, slow_p99]) in lanes.iter().zip(full).zip(steady) {
        let target = if lane.variant == ProxyVariant::Agent {
            target_cell(lanes, full, steady)
        } else {
            String::new()
        };
        table.add_row([
            lane.variant.name().to_owned(),
            format!("{rate:.0} ({:.2})", rate / full[0][0]),
            format!("{p99:.2}"),
            lane.cell_unless_direct(format!("{each:.0}")),
            format!("{slow_p50:.3}"),
            format!("{slow_p99:.3}"),
            target,
        ]);
    }
    table
}

/// Compares the agent with the better of the peers.
fn target_cell(lanes: &[ProxySetup], full: &[[f64; 3]], steady: &[[f64; 2]]) -> String {
    let of = |own: bool| {
        let chosen = move |lane: &ProxySetup| {
            lane.variant != ProxyVariant::Direct && (lane.variant == ProxyVariant::Agent) == own
        };
        let chosen =
            lanes.iter().zip(full.iter().zip(steady)).filter(move |(lane, _)| chosen(lane));
        chosen.fold([0.0_f64, f64::MAX, f64::MAX], |best, (_, (full, steady))| {
            [best[0].max(full[0]), best[1].min(full[1]), best[2].min(steady[1])]
        })
    };
    let ([rate, p99, slow_p99], peers) = (of(true), of(false));
    format!(
        "more than the peers: {}; sooner: {}, {}",
        met_label(rate > peers[0]),
        met_label(p99 < peers[1]),
        met_label(slow_p99 < peers[2]),
    )
}
