//! Random policies, and random packets to their destinations, from a seed.

mod random_addresses;
mod random_packets;
pub mod random_policies;

pub use random_packets::{PacketGenerator, RandomPacket};
pub use random_policies::RandomPolicy;
