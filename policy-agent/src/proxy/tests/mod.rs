//! The whole proxy on loopback sockets, with a stand-in for the network: what sandboxes see is what
//! a test says, and so is where names lead.

mod changes;
pub mod hello;
mod http;
mod limits;
mod mutated;
mod names;
mod network;
mod size;
mod sni;
mod stage;
mod tunnel;
