//! A sandbox on a bridge with a neighbour: here every frame crosses that nobody stops, also what a
//! router would never forward (ARP, VLAN tags, unknown ethertypes).

use std::path::Path;

use anyhow::Result;

use super::{Namespace, Sandbox, World, sandbox::mac_text};

/// The neighbour's interface, inside.
pub const NEIGHBOUR_LINK: &str = "eth0";
/// The neighbour's MAC address.
pub const NEIGHBOUR_MAC: [u8; 6] = [0x02, 0xfd, 0, 0, 0, 1];
const BRIDGE: &str = "br0";

/// Another machine on the sandbox's network.
pub struct Neighbour {
    /// Where it lives.
    pub inside: Namespace,
}

/// Where the kernel has it, netfilter looks at what bridges forward, and drops malformed packets.
const NETFILTER: [&str; 3] = ["iptables", "ip6tables", "arptables"];

/// Adds a sandbox whose interface is a port of a bridge, and its neighbour on another port. The
/// bridge has no addresses: nothing is routed.
pub fn sandbox_with_neighbour(world: &World) -> Result<(Sandbox, Neighbour)> {
    let number = world.next_number();
    let sandbox = Sandbox::unlinked(number, &format!("sb{number}"))?;
    let neighbour = Neighbour { inside: Namespace::create("neighbour")? };
    sandbox.plug_into(&world.host)?;
    for table in NETFILTER {
        let key = format!("bridge/bridge-nf-call-{table}");
        if Path::new("/proc/sys/net").join(&key).exists() {
            world.host.sysctl(&key, "0")?;
        }
    }
    world.host.ip(&format!(
        "link add {BRIDGE} type bridge mcast_snooping 0
         link set {BRIDGE} up
         link add lan index 101 type veth peer name {NEIGHBOUR_LINK} address {} netns {}
         link set lan master {BRIDGE} up
         link set {} master {BRIDGE}",
        mac_text(NEIGHBOUR_MAC),
        neighbour.inside.name(),
        sandbox.interface,
    ))?;
    neighbour.inside.ip(&format!(
        "addr add {}/24 dev {NEIGHBOUR_LINK}
         addr add {}/64 dev {NEIGHBOUR_LINK} nodad
         link set {NEIGHBOUR_LINK} up",
        sandbox.identity.gateway_v4(),
        sandbox.identity.gateway_v6(),
    ))?;
    Ok((sandbox, neighbour))
}
