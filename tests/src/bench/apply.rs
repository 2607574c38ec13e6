//! The time from a policy to its enforcement: compile it, fill its tables, swap them in, and wait
//! until the kernel uses them.

use std::time::Instant;

use anyhow::Result;
use policy_agent::dataplane::{DenyAction, Inbound, Slot};

use super::{
    Effort, Table,
    lists::{self, Lists},
    report::at_most,
    rounds::median,
};
use crate::{kernel, world::Bpffs};

/// Targets in ms, by size.
const TARGETS: [f64; 3] = [12.0, 25.0, 150.0];
/// Updates per round: each is a policy that was not there before.
const UPDATES: usize = 3;

/// Measures updates.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let bpffs = Bpffs::find()?;
    let dataplane = kernel::open(&bpffs, DenyAction::Reject, Inbound::Any)?;
    // A slot for each size: policies replace others of their size.
    let slots: Vec<_> = (1..).filter_map(Slot::new).take(effort.sizes.len()).collect();
    for &slot in &slots {
        kernel::prepare(&dataplane, slot, None, &[[10, 11, 0, 5].into()])?;
    }
    let columns = ["p50, ms", "compile", "publish", "both", "target"];
    let mut table = Table::new("Applying a policy", &columns);
    let mut samples = vec![(Vec::new(), Vec::new()); effort.sizes.len()];
    for update in 0..effort.rounds * UPDATES {
        for ((samples, &size), &slot) in samples.iter_mut().zip(&effort.sizes).zip(&slots) {
            let network = Lists::new(size / 2, size - size / 2, update as u64).network(&[]);
            let begin = Instant::now();
            let compiled = lists::compiled(&network)?;
            samples.0.push(begin.elapsed().as_secs_f64() * 1e3);
            let begin = Instant::now();
            dataplane.publish(&[slot], &compiled)?;
            samples.1.push(begin.elapsed().as_secs_f64() * 1e3);
        }
    }
    for (((compile, publish), size), limit) in samples.into_iter().zip(effort.sizes).zip(TARGETS) {
        let both = compile.iter().zip(&publish).map(|(a, b)| a + b).collect();
        let both = median(both);
        table.row([
            format!("{size} entries, half of them IPv6"),
            format!("{:.1}", median(compile)),
            format!("{:.1}", median(publish)),
            format!("{both:.1}"),
            at_most(both, limit, "ms"),
        ]);
    }
    Ok(vec![table])
}
