//! Packets per second from a sandbox through the host to the internet: without a policy, with
//! nftables, and with ours.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use policy_agent::dataplane::{Dataplane, DenyAction, Inbound};

use super::{
    Effort, Table,
    lists::Lists,
    report::at_least,
    rounds::medians,
    sender::Sender,
    topology::{Guard, Road},
};
use crate::{kernel, world::Bpffs};

const DESTINATIONS: usize = 65_536;

/// Measures forwarding.
pub fn run(effort: &Effort) -> Result<Vec<Table>> {
    let bpffs = Bpffs::find()?;
    let dataplane = kernel::open(&bpffs, DenyAction::Drop, Inbound::Any)?;
    let small = Lists::new(effort.sizes[1], 0, 3);
    let large = Lists::new(effort.sizes[2], 0, 3);
    let like = IpAddr::from([0, 0, 0, 0]);
    let mut lanes = Vec::new();
    for (guard, lists) in [
        (Guard::None, &small),
        (Guard::Nftables, &small),
        (Guard::Nftables, &large),
        (Guard::Ours, &small),
        (Guard::Ours, &large),
    ] {
        lanes.push(Lane::open(
            guard,
            &dataplane,
            lists,
            &lists.destinations(like, true, DESTINATIONS, 4),
        )?);
    }
    let time = Duration::from_secs_f64(effort.seconds);
    let one = medians(effort.rounds, &mut lanes, |lane| lane.kpps(1, time))?;
    let many = medians(effort.rounds, &mut lanes, |lane| lane.kpps(DESTINATIONS, time))?;
    Ok(vec![table(&lanes, &one, &many)])
}

/// A road with a sender and its frames.
struct Lane {
    road: Road,
    sender: Sender,
    frames: Vec<Vec<u8>>,
}

impl Lane {
    fn open(guard: Guard, dataplane: &Dataplane, lists: &Lists, to: &[IpAddr]) -> Result<Self> {
        let road = Road::build(guard, dataplane, lists, &[])?;
        let sender = Sender::open(&road.sandbox.inside, road.inside())?;
        let frames = road.frames(to);
        let lane = Self { road, sender, frames };
        // The neighbours are asked for with the first packets.
        lane.kpps(64, Duration::from_millis(200))?;
        Ok(lane)
    }

    /// Thousands of packets that arrive per second.
    fn kpps(&self, destinations: usize, time: Duration) -> Result<f64> {
        let before = self.road.arrived()?;
        // One flow, repeated, fills a batch like many do.
        let one = vec![self.frames[0].clone(); 64];
        let frames = if destinations == 1 { &one } else { &self.frames[..destinations] };
        let (_, taken) = self.sender.flood(frames, time)?;
        let arrived = self.road.arrived()? - before;
        Ok(arrived as f64 / taken.as_secs_f64() / 1e3)
    }
}

fn table(lanes: &[Lane], one: &[f64], many: &[f64]) -> Table {
    let columns = ["forwarded, kpps (of no policy)", "one flow", "65 536 destinations", "target"];
    let mut table = Table::new("Forwarding", &columns);
    for (index, lane) in lanes.iter().enumerate() {
        let cell =
            |values: &[f64]| format!("{:.0} ({:.2})", values[index], values[index] / values[0]);
        let target = match lane.road.guard {
            Guard::Ours => {
                let least = (one[index] / one[0]).min(many[index] / many[0]);
                // The same size with nftables stands two rows above.
                let peer = (one[index] / one[index - 2]).min(many[index] / many[index - 2]);
                let limit = if index == 3 { 1.4 } else { 1.6 };
                let (own, peer) = (at_least(least, 0.95, ""), at_least(peer, limit, "× nftables"));
                format!("{own}; {peer}")
            }
            _ => String::new(),
        };
        table.row([lane.road.name.clone(), cell(one), cell(many), target]);
    }
    table
}
