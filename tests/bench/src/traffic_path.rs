//! The path of the traffic: sandbox → host → internet, with a filter in the host. Each path has its
//! own test network, so that all paths exist at once and can be measured alternately.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::IpAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use policy_agent::{
    dataplane::{Dataplane, HostInterface, Slot},
    policy::Floor,
};

use serde_json::json;

use super::prefix_lists::PrefixLists;
use crate::dataplane::prepare_slot;
use policy_testbed::{
    agent::AgentProcess,
    network::{
        Sandbox, TestNetwork, command, host_router::UPLINK_INTERFACE, sandbox::SANDBOX_INTERFACE,
    },
};

/// The filter in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathFilter {
    /// No filter.
    None,
    /// The host's routing table drops everything silently.
    Blackhole,
    /// The host's routing table denies everything, and the network stack sends replies.
    Prohibit,
    /// nftables interval sets with the same rules: the floor, then the allowed destinations.
    Nftables,
    /// The dataplane, without its guard.
    Agent,
    /// An agent with default settings, which include the guard.
    GuardedAgent,
}

/// One path.
pub(crate) struct TrafficPath {
    /// The name in tables.
    pub(crate) name: String,
    /// The filter.
    pub(crate) filter: PathFilter,
    /// The namespaces.
    pub(crate) network: TestNetwork,
    /// The source of the traffic.
    pub(crate) sandbox: Sandbox,
    /// The agent of [`PathFilter::GuardedAgent`].
    agent: Option<AgentProcess>,
}

impl TrafficPath {
    /// Builds a path whose filter allows the lists and `also`.
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
            PathFilter::GuardedAgent => format!("policy and guard, {count} CIDRs"),
        };
        let mut road = Self { name, filter: guard, network: world, sandbox, agent: None };
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
            PathFilter::GuardedAgent => road.start_agent(lists, also)?,
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

    fn start_agent(&mut self, lists: &PrefixLists, also: &[IpNet]) -> Result<()> {
        let mut agent = AgentProcess::configure("")?;
        agent.start(&self.network.host)?;
        let spec = self.sandbox.sandbox_spec(&json!({ "network": lists.network_config(also) }));
        let path = format!("/agent/v1/sandboxes/{}", self.sandbox.id);
        let answer = agent.request("PUT", &path, &spec.to_string())?;
        ensure!(answer.status < 300, "the agent refuses the sandbox: {}", answer.body);
        self.agent = Some(agent);
        Ok(())
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

    /// The number of packets that have arrived at the internet.
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

    /// Frames to these destinations, as the sandbox's interface would send them.
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

    /// The sandbox's own interface.
    pub(crate) fn sandbox_interface(&self) -> &'static str {
        SANDBOX_INTERFACE
    }
}
