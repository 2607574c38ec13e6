//! Interfaces, routes and network namespaces of the host, accessed through netlink.

pub(crate) mod default_route;
pub(crate) mod host_addresses;
pub(crate) mod link_device;
pub(crate) mod namespace_interface;
pub(crate) mod netlink;
pub(crate) mod netns;
pub(crate) mod nftables_generation;
pub(crate) mod peer_interfaces;
pub(crate) mod route_lookup;
