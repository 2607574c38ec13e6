//! A sandbox on a bridge with a neighbour. The bridge forwards every frame that the policy does not
//! drop, including those that a router would never forward (ARP, VLAN tags, unknown EtherTypes).

use std::path::Path;

use anyhow::Result;

use super::{NetworkNamespace, Sandbox, TestNetwork, sandbox::format_mac};

/// The neighbour's interface, inside its namespace.
pub const NEIGHBOR_INTERFACE: &str = "eth0";
/// The neighbour's MAC address.
pub const NEIGHBOR_MAC: [u8; 6] = [0x02, 0xfd, 0, 0, 0, 1];
const BRIDGE_NAME: &str = "br0";

/// Another machine on the sandbox's network.
pub struct BridgeNeighbor {
    /// The neighbour's namespace.
    pub namespace: NetworkNamespace,
}

/// With these sysctls enabled, netfilter sees bridged packets and drops malformed ones.
const BRIDGE_NETFILTER_TABLES: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// Adds a sandbox whose interface is a port of a bridge, and a neighbour on another port. The
/// bridge has no addresses, so nothing is routed.
pub fn bridged_sandbox_with_neighbor(world: &TestNetwork) -> Result<(Sandbox, BridgeNeighbor)> {
    let number = world.next_number();
    let sandbox = Sandbox::without_link(number, &format!("sb{number}"))?;
    let neighbour = BridgeNeighbor { namespace: NetworkNamespace::create("neighbour")? };
    sandbox.create_veth(&world.host)?;
    for table in BRIDGE_NETFILTER_TABLES {
        let key = format!("bridge/bridge-nf-call-{table}");
        if Path::new("/proc/sys/net").join(&key).exists() {
            world.host.sysctl(&key, "0")?;
        }
    }
    world.host.ip_batch(&format!(
        "link add {BRIDGE_NAME} type bridge mcast_snooping 0
         link set {BRIDGE_NAME} up
         link add lan index 101 type veth peer name {NEIGHBOR_INTERFACE} address {} netns {}
         link set lan master {BRIDGE_NAME} up
         link set {} master {BRIDGE_NAME}",
        format_mac(NEIGHBOR_MAC),
        neighbour.namespace.name(),
        sandbox.interface,
    ))?;
    neighbour.namespace.ip_batch(&format!(
        "addr add {}/24 dev {NEIGHBOR_INTERFACE}
         addr add {}/64 dev {NEIGHBOR_INTERFACE} nodad
         link set {NEIGHBOR_INTERFACE} up",
        sandbox.addressing.gateway_v4(),
        sandbox.addressing.gateway_v6(),
    ))?;
    Ok((sandbox, neighbour))
}
