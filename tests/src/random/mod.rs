//! Random policies and random packets that are about them, from a seed.

mod addresses;
mod packets;
pub mod policies;

pub use packets::{Packet, Packets};
pub use policies::Random;
