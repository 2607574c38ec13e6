//! The host: a router between its sandboxes and the internet.

use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{
    NetworkNamespace,
    sandbox::{SANDBOX_NETWORK_V4, SANDBOX_NETWORK_V6},
};

/// The name of the uplink interface, at both ends.
pub const UPLINK_INTERFACE: &str = "uplink";
/// The host's IPv4 address on the uplink.
pub const HOST_UPLINK_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The internet's IPv4 address on the uplink.
pub const INTERNET_UPLINK_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// The host's IPv6 address on the uplink.
pub const HOST_UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
/// The internet's IPv6 address on the uplink.
pub const INTERNET_UPLINK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 2);

/// Enables forwarding in a namespace.
pub fn enable_forwarding(host: &NetworkNamespace) -> Result<()> {
    host.sysctl("ipv4/ip_forward", "1")?;
    host.sysctl("ipv6/conf/all/forwarding", "1")
}

/// Links the host to the internet, which becomes its default route, except for the addresses of
/// sandboxes that do not exist.
///
/// The two ends have different indexes for the same reason as those of a sandbox's link.
pub fn link_to_internet(host: &NetworkNamespace, internet: &NetworkNamespace) -> Result<()> {
    host.ip_batch(&format!(
        "link add {UPLINK_INTERFACE} index 100 type veth peer name {UPLINK_INTERFACE} netns {}
         addr add {HOST_UPLINK_V4}/24 dev {UPLINK_INTERFACE}
         addr add {HOST_UPLINK_V6}/64 dev {UPLINK_INTERFACE} nodad
         link set {UPLINK_INTERFACE} up",
        internet.name()
    ))?;
    internet.ip_batch(&format!(
        "addr add {INTERNET_UPLINK_V4}/24 dev {UPLINK_INTERFACE}
         addr add {INTERNET_UPLINK_V6}/64 dev {UPLINK_INTERFACE} nodad
         link set {UPLINK_INTERFACE} up"
    ))?;
    host.ip_batch(&format!(
        "route add 0.0.0.0/0 via {INTERNET_UPLINK_V4}
         route add ::/0 via {INTERNET_UPLINK_V6}
         route add blackhole {SANDBOX_NETWORK_V4}
         route add blackhole {SANDBOX_NETWORK_V6}"
    ))
}
