//! The whole proxy on loopback sockets, with a stand-in for the network: what sandboxes see is what
//! a test says, and so is where names lead.

mod connection_limits;
mod egress_proxy_connections;
mod fake_network;
mod harness;
pub mod hello_builder;
mod http_requests;
mod memory_use;
mod mutated_requests;
mod name_resolution;
mod policy_changes;
mod tls_connections;
