//! Connections and messages, for the egress proxy and the gateway alike.

pub mod hop;
pub mod race;
pub mod socket;
pub mod upstream;
