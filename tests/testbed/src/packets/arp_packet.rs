//! ARP (RFC 826).

use std::net::Ipv4Addr;

use super::{EthernetFrame, MacAddr};

/// An ARP packet between Ethernet and IPv4 addresses.
#[derive(Clone, Copy, Debug)]
pub struct ArpPacket {
    /// 1: request, 2: reply.
    pub operation: u16,
    /// The sender's addresses.
    pub sender: (MacAddr, Ipv4Addr),
    /// The addresses of the target.
    pub target: (MacAddr, Ipv4Addr),
}

impl ArpPacket {
    /// "Who has `target`? Tell `sender`."
    pub fn request(sender: (MacAddr, Ipv4Addr), target: Ipv4Addr) -> Self {
        Self { operation: 1, sender, target: ([0; 6], target) }
    }

    /// "`sender` is at this MAC", sent to `target`.
    pub fn reply(sender: (MacAddr, Ipv4Addr), target: (MacAddr, Ipv4Addr)) -> Self {
        Self { operation: 2, sender, target }
    }

    /// The broadcast frame from the sandbox.
    pub fn to_frame(&self) -> EthernetFrame {
        let form = [0, 1, 8, 0, 6, 4];
        let operation = self.operation.to_be_bytes();
        let (sender, target) = (self.sender.1.octets(), self.target.1.octets());
        let parts =
            [&form[..], &operation, &self.sender.0, &sender, &self.target.0, &target].concat();
        EthernetFrame::new(0x0806, &parts).with_destination([0xff; 6])
    }
}
