//! Denied packets per second that the host gets rid of: by its routing table, with answers and
//! without, by nftables, and by ours. Everything happens on the sender's processor, so its rate is
//! the rate of the drops, what sending itself costs included.

use std::{net::IpAddr, time::Duration};

use anyhow::{Result, ensure};
use policy_agent::dataplane::{DenyAction, Inbound};

use super::{
    Effort, Table,
    lists::Lists,
    report::at_least,
    rounds::medians,
    sender::Sender,
    topology::{Guard, Road},
};
use crate::{kernel, world::Bpffs};

/// Measures dropping.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let bpffs = Bpffs::find()?;
    let dataplane = kernel::open(&bpffs, DenyAction::Drop, Inbound::Any)?;
    let lists = Lists::new(effort.sizes[1], 0, 5);
    let denied = lists.destinations(IpAddr::from([0, 0, 0, 0]), false, 4096, 6);
    let mut lanes = Vec::new();
    for guard in [Guard::Prohibit, Guard::Blackhole, Guard::Nftables, Guard::Ours] {
        let road = Road::build(guard, &dataplane, &lists, &[])?;
        let sender = Sender::open(&road.sandbox.inside, road.inside())?;
        let frames = road.frames(&denied);
        lanes.push((road, sender, frames));
    }
    let time = Duration::from_secs_f64(effort.seconds);
    let kpps = medians(effort.rounds, &mut lanes, |(road, sender, frames)| {
        let before = road.arrived()?;
        let (sent, taken) = sender.flood(frames, time)?;
        // Neighbours look for each other now and then.
        ensure!(road.arrived()? < before + 16, "{}: denied packets arrived", road.name);
        Ok(sent as f64 / taken.as_secs_f64() / 1e3)
    })?;
    let columns = ["dropped, kpps (of the stack)", "4 096 destinations", "target"];
    let mut table = Table::new("Dropping", &columns);
    for ((road, ..), &rate) in lanes.iter().zip(&kpps) {
        let ratio = rate / kpps[0];
        let ours = road.guard == Guard::Ours;
        let target = if ours { at_least(ratio, 2.5, "× the stack") } else { String::new() };
        table.row([road.name.clone(), format!("{rate:.0} ({ratio:.2})"), target]);
    }
    Ok(vec![table])
}
