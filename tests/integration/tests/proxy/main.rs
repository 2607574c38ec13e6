//! The egress proxy: which domains a sandbox can reach, and how the kernel redirects connections to
//! the proxy ([`redirect`]).

mod client_hellos;
mod closing_connections;
mod egress_proxy;
mod fairness;
mod header_rules;
mod http_requests;
mod interface_placements;
mod name_bypasses;
mod name_resolution;
mod name_updates;
mod named_internet_baseline;
mod observed_names;
mod proxied_traffic;
mod proxy_limits;
mod redirect;
mod socks_proxy;
