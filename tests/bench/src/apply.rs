//! Measures the time from a policy to its enforcement: compile it, fill its maps, publish it, and
//! wait until the kernel uses it.

use std::time::Instant;

use anyhow::Result;
use policy_agent::dataplane::{DenyAction, Slot};

use super::{
    BenchProfile, ResultTable,
    prefix_lists::{self, PrefixLists},
    result_table::at_most_target,
    rounds::median,
};
use crate::dataplane::{open_dataplane, prepare_slot};
use policy_testbed::network::BpffsDirectory;

/// Targets in ms, by policy size.
const TARGETS_MS: [f64; 3] = [1.0, 1.0, 40.0];
/// Updates per round. Each applies a new policy.
const UPDATES_PER_ROUND: usize = 3;

/// Measures policy updates.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Reject)?;
    // One slot per size, so that a policy replaces another of its size.
    let slots: Vec<_> = (1..).filter_map(Slot::new).take(effort.policy_sizes.len()).collect();
    for &slot in &slots {
        prepare_slot(&dataplane, slot, None, &[[10, 11, 0, 5].into()])?;
    }
    let columns = ["p50, ms", "compile", "publish", "both", "target"];
    let mut table = ResultTable::new("Applying a policy", &columns);
    let mut samples = vec![(Vec::new(), Vec::new()); effort.policy_sizes.len()];
    for update in 0..effort.rounds * UPDATES_PER_ROUND {
        for ((samples, &size), &slot) in samples.iter_mut().zip(&effort.policy_sizes).zip(&slots) {
            let network =
                PrefixLists::new(size / 2, size - size / 2, update as u64).network_config(&[]);
            let begin = Instant::now();
            let compiled = prefix_lists::compile_network(&network)?;
            samples.0.push(begin.elapsed().as_secs_f64() * 1e3);
            let begin = Instant::now();
            dataplane.publish(&[slot], &compiled)?;
            samples.1.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (((compile, publish), size), limit) in
        samples.into_iter().zip(effort.policy_sizes).zip(TARGETS_MS)
    {
        let both = compile.iter().zip(&publish).map(|(a, b)| a + b).collect();
        let both = median(both);
        table.add_row([
            format!("{size} entries, half of them IPv6"),
            format!("{:.1}", median(compile)),
            format!("{:.1}", median(publish)),
            format!("{both:.1}"),
            at_most_target(both, limit, "ms"),
        ]);
    }
    Ok(vec![table])
}
