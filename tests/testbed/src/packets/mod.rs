//! Frames as data: one small builder per protocol, and a fixed set of hosts that send them.
//!
//! The builders make valid frames with correct checksums. [`EthernetFrame`] then modifies them byte
//! by byte. This module knows nothing about policies.

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
