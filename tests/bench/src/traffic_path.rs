//! The road that traffic takes: sandbox → host → internet, with a policy of some kind on it. Each
//! road is a world of its own, so that all can stand while they are measured in turns.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use policy_agent::{
    dataplane::{Dataplane, HostInterface, Slot},
    policy::Floor,
};

use super::prefix_lists::PrefixLists;
use crate::dataplane::prepare_slot;
use policy_testbed::network::{
    Sandbox, TestNetwork, command, host_router::UPLINK_INTERFACE, sandbox::SANDBOX_INTERFACE,
};

/// What stands on the road.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathFilter {
    /// Nothing.
    None,
    /// The host's routing table drops everything in silence.
    Blackhole,
    /// The host's routing table refuses everything, and the stack answers.
    Prohibit,
    /// nftables interval sets with the same rules: the floor, then what is allowed.
    Nftables,
    /// The dataplane.
    Agent,
}

/// One road.
pub(crate) struct TrafficPath {
    /// What it is called in tables.
    pub(crate) name: String,
    /// What stands on it.
    pub(crate) filter: PathFilter,
    /// Its namespaces.
    pub(crate) network: TestNetwork,
    /// Where the traffic starts.
    pub(crate) sandbox: Sandbox,
}

impl TrafficPath {
    /// Builds a road with a guard that allows the lists and `also`.
    pub(crate) fn build(
        guard: PathFilter,
        dataplane: &Dataplane,
        lists: &PrefixLists,
        also: &[IpNet],
    ) -> Result<Self> {
        let world = TestNetwork::build()?;
        let sandbox = world.add_sandbox()?;
        let count = lists.v4.len();
        let name = match guard {
            PathFilter::None => "no policy".to_owned(),
            PathFilter::Blackhole => "blackhole route".to_owned(),
            PathFilter::Prohibit => "prohibit route".to_owned(),
            PathFilter::Nftables => format!("nftables, {count} CIDRs"),
            PathFilter::Agent => format!("policy, {count} CIDRs"),
        };
        let road = Self { name, filter: guard, network: world, sandbox };
        match guard {
            PathFilter::None => {}
            PathFilter::Blackhole => {
                road.network.host.ip_batch("route replace blackhole 0.0.0.0/0")?
            }
            PathFilter::Prohibit => {
                road.network.host.ip_batch("route replace prohibit 0.0.0.0/0")?
            }
            PathFilter::Nftables => road.install_nftables(lists, also)?,
            PathFilter::Agent => road.attach_dataplane(dataplane, lists, also)?,
        }
        Ok(road)
    }

    fn attach_dataplane(
        &self,
        dataplane: &Dataplane,
        lists: &PrefixLists,
        also: &[IpNet],
    ) -> Result<()> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let slot = Slot::new(NEXT.fetch_add(1, Ordering::Relaxed)).context("there is a slot")?;
        let identity = self.sandbox.addressing;
        prepare_slot(dataplane, slot, Some(identity.mac()), &self.sandbox.addresses())?;
        dataplane.publish(&[slot], &lists.compile(also)?)?;
        let netns = Some(self.network.host.path());
        let interface = HostInterface { name: self.sandbox.interface.clone(), netns };
        dataplane.attach(&format!("road{}", slot.get()), slot, &interface)
    }

    fn install_nftables(&self, lists: &PrefixLists, also: &[IpNet]) -> Result<()> {
        let is_v4 = |net: &&IpNet| matches!(net, IpNet::V4(_));
        let floor = Floor::default();
        let floor = floor.deny.iter().filter(is_v4).map(ToString::to_string);
        let allowed = lists.v4.iter().map(ToString::to_string);
        let allowed = allowed.chain(also.iter().filter(is_v4).map(ToString::to_string));
        let mut rules = String::from("table ip peer {\n");
        for (name, elements) in
            [("denied", floor.collect::<Vec<_>>()), ("allowed", allowed.collect())]
        {
            let elements = elements.join(",\n");
            writeln!(
                rules,
                "set {name} {{ type ipv4_addr; flags interval; auto-merge; elements = {{ {elements} }}; }}"
            )?;
        }
        let interface = &self.sandbox.interface;
        writeln!(
            rules,
            "chain forward {{ type filter hook forward priority 0; policy accept;
             iifname \"{interface}\" ip daddr @denied drop
             iifname \"{interface}\" ip daddr @allowed accept
             iifname \"{interface}\" drop\n}}\n}}"
        )?;
        let mut file = tempfile::NamedTempFile::new().context("making a file for nft")?;
        file.write_all(rules.as_bytes()).context("writing rules for nft")?;
        command::run(self.network.host.command("nft")?.arg("-f").arg(file.path()))?;
        Ok(())
    }

    /// Packets that have arrived at the internet.
    pub(crate) fn arrived_packets(&self) -> Result<u64> {
        let _inside = self.network.internet.enter()?;
        let table =
            std::fs::read_to_string("/proc/thread-self/net/dev").context("reading counters")?;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix(UPLINK_INTERFACE)?.strip_prefix(':'));
        let packets = line.and_then(|line| line.split_whitespace().nth(1));
        packets.and_then(|packets| packets.parse().ok()).context("the uplink has a counter")
    }

    /// Frames from the sandbox to these destinations, as they leave its interface.
    pub(crate) fn udp_frames(&self, destinations: &[IpAddr]) -> Vec<Vec<u8>> {
        use policy_testbed::packets::{IpDatagram, IpPayload};
        let identity = self.sandbox.addressing;
        let frame = |destination: &IpAddr| {
            let datagram =
                IpDatagram::new(identity.v4(), *destination, IpPayload::udp(4000, 4000, &[0; 18]));
            let frame = datagram
                .to_frame()
                .with_source(identity.mac())
                .with_destination(identity.gateway_mac());
            frame.bytes().to_vec()
        };
        destinations.iter().map(frame).collect()
    }

    /// The interface that the sandbox sends from.
    pub(crate) fn sandbox_interface(&self) -> &'static str {
        SANDBOX_INTERFACE
    }
}
