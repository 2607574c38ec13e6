//! Measures the time to attach interfaces, one after the other.

use std::{fmt::Write as _, time::Instant};

use anyhow::{Context as _, Result};
use policy_agent::dataplane::{DenyAction, HostInterface, Slot};

use super::{BenchProfile, ResultTable, result_table::at_most_target};
use crate::dataplane::{open_dataplane, prepare_slot};
use policy_testbed::network::{BpffsDirectory, NetworkNamespace};

/// Measures attachment.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let count = effort.interfaces;
    let host = NetworkNamespace::create("attach")?;
    let mut lines = String::new();
    for number in 0..count {
        writeln!(lines, "link add sb{number} type veth peer name in{number}")?;
    }
    host.ip_batch(&lines)?;
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Reject)?;
    let begin = Instant::now();
    for number in 0..count {
        let slot = u32::try_from(number + 1).ok().and_then(Slot::new).context("there is a slot")?;
        prepare_slot(&dataplane, slot, None, &[[10, 11, 0, 5].into()])?;
        let interface = HostInterface { name: format!("sb{number}"), netns: Some(host.path()) };
        dataplane.attach(&format!("box{number}"), slot, &interface)?;
    }
    let taken = begin.elapsed().as_secs_f64();
    let thousand = taken / count as f64 * 1e3;
    let mut table = ResultTable::new(
        "Attaching",
        &["interfaces", "s", "ms each", "s for 1 000", "target for 1 000"],
    );
    table.add_row([
        count.to_string(),
        format!("{taken:.2}"),
        format!("{:.2}", taken / count as f64 * 1e3),
        format!("{thousand:.2}"),
        at_most_target(thousand, 3.0, "s"),
    ]);
    Ok(vec![table])
}
