//! Measures how many denied packets per second the host drops: with its routing table (with and
//! without replies), with nftables, and with the agent. The sender's CPU does all the work, so its
//! send rate is the drop rate, including the cost of sending.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use policy_agent::dataplane::DenyAction;

use super::{
    BenchProfile, ResultTable,
    frame_sender::FrameSender,
    prefix_lists::PrefixLists,
    result_table::at_least_target,
    rounds::medians,
    traffic_path::{PathFilter, TrafficPath},
};
use crate::dataplane::open_dataplane;
use policy_testbed::network::BpffsDirectory;

/// Measures drops.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Drop)?;
    let lists = PrefixLists::new(effort.policy_sizes[1], 0, 5);
    let denied = lists.destinations(IpAddr::from([0, 0, 0, 0]), false, 4096, 6);
    let mut lanes = Vec::new();
    for guard in
        [PathFilter::Prohibit, PathFilter::Blackhole, PathFilter::Nftables, PathFilter::Agent]
    {
        let road = TrafficPath::build(guard, &dataplane, &lists, &[])?;
        let sender = FrameSender::open(&road.sandbox.namespace, road.sandbox_interface())?;
        let frames = road.udp_frames(&denied);
        lanes.push((road, sender, frames));
    }
    let time = Duration::from_secs_f64(effort.seconds);
    let kpps = medians(effort.rounds, &mut lanes, |(road, sender, frames)| {
        let before = road.arrived_packets()?;
        let (sent, taken) = sender.send_for(frames, time)?;
        // Some neighbour discovery packets arrive as well.
        ensure!(road.arrived_packets()? < before + 16, "{}: denied packets arrived", road.name);
        Ok(sent as f64 / taken.as_secs_f64() / 1e3)
    })?;
    let columns = ["dropped, kpps (of the stack)", "4 096 destinations", "target"];
    let mut table = ResultTable::new("Dropping", &columns);
    for ((road, ..), &rate) in lanes.iter().zip(&kpps) {
        let ratio = rate / kpps[0];
        let ours = road.filter == PathFilter::Agent;
        let target = if ours { at_least_target(ratio, 2.5, "× the stack") } else { String::new() };
        table.add_row([road.name.clone(), format!("{rate:.0} ({ratio:.2})"), target]);
    }
    Ok(vec![table])
}
