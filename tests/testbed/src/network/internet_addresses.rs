//! The "internet": one namespace that owns every address that the tests use.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::Result;

use super::{
    NetworkNamespace,
    host_router::{HOST_UPLINK_V4, HOST_UPLINK_V6},
    sandbox::{SANDBOX_NETWORK_V4, SANDBOX_NETWORK_V6},
};

/// Addresses like those in the examples of the public documentation, and some from the ranges
/// reserved for documentation.
pub const PUBLIC_ADDRESSES: [&str; 11] = [
    "1.1.1.1",
    "8.8.8.8",
    "8.8.8.9",
    "203.0.113.10",
    "203.0.113.11",
    "198.51.100.7",
    "2001:db8:1::1",
    "2001:db8:1::2",
    "2001:db8:2::1",
    "2606:4700:4700::1111",
    "64:ff9b::101:101",
];

/// Addresses that no sandbox can reach by default: metadata, private ranges, and IPv6 addresses
/// that embed such an IPv4 address (NAT64, 6to4, Teredo, IPv4-compatible).
pub const FLOOR_ADDRESSES: [&str; 21] = [
    "169.254.169.254",
    "168.63.129.16",
    "10.99.0.1",
    "172.16.5.5",
    "192.168.7.7",
    "100.64.0.1",
    "198.18.0.1",
    "192.0.0.9",
    "192.88.99.1",
    "fd99::1",
    "fec0::1",
    "5f00::1",
    "64:ff9b:1::1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a63:1",
    "2002:a9fe:a9fe::1",
    "2002:a63:1::1",
    "2001:0:4136:e378:8000:63bf:5601:5601",
    "2001:0:4136:e378:8000:63bf:f59c:fffe",
    "::a9fe:a9fe",
    "::a63:1",
];

/// A /24 that belongs entirely to the internet. Sites with names get their IPv4 addresses from it.
pub const SITE_NETWORK_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 0);
/// The /64 for the IPv6 addresses of sites.
pub const SITE_NETWORK_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0);

/// All internet addresses that the tests name individually.
pub fn all_addresses() -> Vec<IpAddr> {
    let all = PUBLIC_ADDRESSES.iter().chain(&FLOOR_ADDRESSES);
    all.map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is no address"))).collect()
}

/// Assigns every address to the loopback interface of a namespace.
pub fn assign_addresses(namespace: &NetworkNamespace) -> Result<()> {
    let mut lines = String::new();
    for address in all_addresses() {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let nodad = if address.is_ipv4() { "" } else { " nodad" };
        let _ = writeln!(lines, "addr add {address}/{length} dev lo{nodad}");
    }
    // A local route accepts traffic to an IPv6 address but does not allow binding to it.
    namespace.sysctl("ipv6/ip_nonlocal_bind", "1")?;
    namespace.ip_batch(&format!(
        "{lines}route add local {SITE_NETWORK_V4}/24 dev lo
         route add local {SITE_NETWORK_V6}/64 dev lo"
    ))
}

/// Routes replies to the sandboxes through the host.
pub fn add_return_routes(internet: &NetworkNamespace) -> Result<()> {
    internet.ip_batch(&format!(
        "route add {SANDBOX_NETWORK_V4} via {HOST_UPLINK_V4}
         route add {SANDBOX_NETWORK_V6} via {HOST_UPLINK_V6}"
    ))
}
