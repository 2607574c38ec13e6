//! Frames as data: one small builder per protocol, and a cast of hosts to send them.
//!
//! Builders make whole, correct frames, checksums included; [`EthernetFrame`] then bends them byte by byte.
//! Nothing here knows what a policy is.

pub mod arp_packet;
mod ethernet_frame;
mod extension_header;
mod ip_datagram;
mod ip_payload;
pub mod neighbor_messages;
pub mod test_hosts;

pub use ethernet_frame::{ETHERNET_HEADER_LEN, EthernetFrame};
pub use extension_header::ExtensionHeader;
pub use ip_datagram::IpDatagram;
pub use ip_payload::{IpPayload, TcpFlags, transport_checksum};

/// An Ethernet address.
pub type MacAddr = [u8; 6];
