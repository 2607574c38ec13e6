//! Connections and messages, for the egress proxy and the gateway alike.

pub mod happy_eyeballs;
pub mod hop_by_hop;
pub mod socket;
pub mod upstream;
