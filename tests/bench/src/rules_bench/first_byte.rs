//! Measures the time to the first byte of a response, one request at a time on a kept-alive connection.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{
    super::{
        BenchProfile, ResultTable,
        result_table::at_most_target,
        rounds::{median, medians},
    },
    rule_setup::{RuleSetup, RuleVariant},
};

/// The time that opening a connection may add, in ms.
const ADDED_TARGET_MS: f64 = 0.3;

/// Measures the 50th percentile.
pub(super) fn run(effort: &BenchProfile, lanes: &mut [RuleSetup]) -> Result<ResultTable> {
    let time = Duration::from_secs_f64(effort.seconds);
    let results = medians(effort.rounds, lanes, |lane| measure_first_byte(lane, time))?;
    let columns =
        ["first byte of a response, kept-alive connection", "ms", "more than spliced", "target"];
    let mut table = ResultTable::new("First byte with a header rule", &columns);
    for (lane, first_byte) in lanes.iter().zip(&results) {
        let added = first_byte - results[0];
        let target = match lane.variant {
            RuleVariant::Agent => at_most_target(added, ADDED_TARGET_MS, "ms"),
            _ => String::new(),
        };
        let name = lane.variant.name().to_owned();
        table.add_row([name, format!("{first_byte:.3}"), format!("{added:+.3}"), target]);
    }
    Ok(table)
}

fn measure_first_byte(lane: &RuleSetup, time: Duration) -> Result<f64> {
    let mut client = lane.open_client(&lane.sandboxes[0])?;
    let (end, mut taken) = (Instant::now() + time, Vec::new());
    while Instant::now() < end {
        taken.push(client.send_request()?.as_secs_f64() * 1e3);
    }
    Ok(median(taken))
}
