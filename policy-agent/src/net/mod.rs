//! Connections and HTTP messages: code shared by the egress proxy and the gateway.

pub(crate) mod continue_gate;
pub(crate) mod gated_body;
pub mod happy_eyeballs;
pub mod hop_by_hop;
pub(crate) mod sandbox_dialer;
pub(crate) mod settings_probe;
pub mod socket;
pub(crate) mod system_roots;
pub(crate) mod unix_http;
pub(crate) mod upgraded_relay;
pub mod upstream;
