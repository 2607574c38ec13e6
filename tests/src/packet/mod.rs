//! Frames as data: one small builder per protocol, and a cast of hosts to send them.
//!
//! Builders make whole, correct frames, checksums included; [`Frame`] then bends them byte by byte.
//! Nothing here knows what a policy is.

pub mod arp;
pub mod cast;
mod datagram;
pub mod discovery;
mod extension;
mod frame;
mod payload;

pub use datagram::Datagram;
pub use extension::Extension;
pub use frame::{ETHERNET, Frame};
pub use payload::{Payload, TcpFlags, checksum};

/// An Ethernet address.
pub type Mac = [u8; 6];
