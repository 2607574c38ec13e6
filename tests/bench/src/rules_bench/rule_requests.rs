//! Measures requests on keep-alive connections.

use std::time::Duration;

use anyhow::Result;

use super::{
    super::{
        BenchProfile, ResultTable,
        result_table::{at_least_target, at_most_target},
        rounds::medians_of_each,
        wrk,
    },
    rule_setup::{RuleSetup, RuleVariant},
};

/// Measures requests.
pub(super) fn run(effort: &BenchProfile, lanes: &mut [RuleSetup]) -> Result<ResultTable> {
    let time = Duration::from_secs_f64(effort.seconds);
    let results = medians_of_each(effort.rounds, lanes, |lane| {
        wrk::measure_requests(lane.wrk_command()?, &lane.url(), time, &lane.relay_pids())
    })?;
    let columns = [
        "requests over TLS, 32 connections (of the better peer)",
        "per s",
        "p50, ms",
        "p99, ms",
        "the proxy, CPU µs each",
        "target",
    ];
    let mut table = ResultTable::new("Requests with a header rule", &columns);
    let peers = || lanes.iter().zip(&results).filter(|(lane, _)| lane.variant.is_peer());
    let best_rate = peers().map(|(_, result)| result[0]).fold(f64::NAN, f64::max);
    let best_p99 = peers().map(|(_, result)| result[2]).fold(f64::NAN, f64::min);
    for (lane, &[rate, p50, p99, each]) in lanes.iter().zip(&results) {
        let target = match lane.variant {
            RuleVariant::Agent => {
                let rate = at_least_target(rate / best_rate, 1.0, "");
                format!("{rate}; p99 {}", at_most_target(p99 / best_p99, 1.0, "of theirs"))
            }
            _ => String::new(),
        };
        table.add_row([
            lane.variant.name().to_owned(),
            format!("{rate:.0} ({:.2})", rate / best_rate),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{each:.0}"),
            target,
        ]);
    }
    Ok(table)
}
