//! Tests of the whole proxy on loopback sockets, with a fake network: the test determines the
//! original destinations and what names resolve to.

mod connection_limits;
mod egress_proxy_connections;
mod fake_network;
mod harness;
pub(super) mod hello_builder;
mod http_requests;
mod memory_use;
mod mutated_requests;
mod name_resolution;
mod policy_changes;
mod tls_connections;
