//! Connections and HTTP messages: code shared by the egress proxy and the gateway.

pub mod happy_eyeballs;
pub mod hop_by_hop;
pub mod socket;
pub mod upstream;
