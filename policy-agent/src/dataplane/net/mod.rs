//! Interfaces, routes and network namespaces of the host, through netlink.

pub mod default_route;
pub mod host_addresses;
pub mod link_device;
pub mod netlink;
pub mod netns;
pub mod route_lookup;
