//! Measures the packets per second from a sandbox through the host to the internet: without a
//! policy, with nftables, and with the agent.

use std::{net::IpAddr, time::Duration};

use anyhow::Result;
use policy_agent::dataplane::{Dataplane, DenyAction};

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

const DESTINATIONS: usize = 65_536;

/// Measures forwarding.
pub(crate) fn run(effort: &BenchProfile) -> Result<Vec<ResultTable>> {
    let bpffs = BpffsDirectory::create()?;
    let dataplane = open_dataplane(&bpffs, DenyAction::Drop)?;
    let small = PrefixLists::new(effort.policy_sizes[1], 0, 3);
    let large = PrefixLists::new(effort.policy_sizes[2], 0, 3);
    let like = IpAddr::from([0, 0, 0, 0]);
    let mut lanes = Vec::new();
    for (guard, lists) in [
        (PathFilter::None, &small),
        (PathFilter::Nftables, &small),
        (PathFilter::Nftables, &large),
        (PathFilter::Agent, &small),
        (PathFilter::Agent, &large),
        (PathFilter::GuardedAgent, &small),
    ] {
        lanes.push(ForwardingSetup::open(
            guard,
            &dataplane,
            lists,
            &lists.destinations(like, true, DESTINATIONS, 4),
        )?);
    }
    let time = Duration::from_secs_f64(effort.seconds);
    let one = medians(effort.rounds, &mut lanes, |lane| lane.measure_kpps(1, time))?;
    let many = medians(effort.rounds, &mut lanes, |lane| lane.measure_kpps(DESTINATIONS, time))?;
    Ok(vec![table(&lanes, &one, &many)])
}

/// A traffic path with a sender and its frames.
struct ForwardingSetup {
    road: TrafficPath,
    sender: FrameSender,
    frames: Vec<Vec<u8>>,
}

impl ForwardingSetup {
    fn open(
        guard: PathFilter,
        dataplane: &Dataplane,
        lists: &PrefixLists,
        to: &[IpAddr],
    ) -> Result<Self> {
        let road = TrafficPath::build(guard, dataplane, lists, &[])?;
        let sender = FrameSender::open(&road.sandbox.namespace, road.sandbox_interface())?;
        let frames = road.udp_frames(to);
        let lane = Self { road, sender, frames };
        // The first packets trigger neighbour resolution.
        lane.measure_kpps(64, Duration::from_millis(200))?;
        Ok(lane)
    }

    /// Returns the rate of received packets in thousands per second.
    fn measure_kpps(&self, destinations: usize, time: Duration) -> Result<f64> {
        let before = self.road.arrived_packets()?;
        // One flow, repeated to fill a batch like many flows do.
        let one = vec![self.frames[0].clone(); 64];
        let frames = if destinations == 1 { &one } else { &self.frames[..destinations] };
        let (_, taken) = self.sender.send_for(frames, time)?;
        let arrived = self.road.arrived_packets()? - before;
        Ok(arrived as f64 / taken.as_secs_f64() / 1e3)
    }
}

fn table(lanes: &[ForwardingSetup], one: &[f64], many: &[f64]) -> ResultTable {
    let columns = ["forwarded, kpps (of no policy)", "one flow", "65 536 destinations", "target"];
    let mut table = ResultTable::new("Forwarding", &columns);
    for (index, lane) in lanes.iter().enumerate() {
        let cell =
            |values: &[f64]| format!("{:.0} ({:.2})", values[index], values[index] / values[0]);
        let target = match lane.road.filter {
            PathFilter::Agent => {
                let least = (one[index] / one[0]).min(many[index] / many[0]);
                // The row of nftables with the same policy size is two rows above.
                let peer = many[index] / many[index - 2];
                let limit = if index == 3 { 1.2 } else { 1.5 };
                let (own, peer) =
                    (at_least_target(least, 0.97, ""), at_least_target(peer, limit, "× nftables"));
                format!("{own}; {peer}")
            }
            _ => String::new(),
        };
        table.add_row([lane.road.name.clone(), cell(one), cell(many), target]);
    }
    table
}
