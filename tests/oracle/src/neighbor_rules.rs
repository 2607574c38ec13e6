//! Line 2 of the precedence: the ARP (RFC 826, RFC 5227) and IPv6 neighbour discovery (RFC 4861,
//! RFC 4862) that a sandbox needs for its own addresses, and its multicast listener reports
//! (RFC 2710, RFC 3810).
//!
//! A message is needed if a host (not a router) sends it, it is well formed, and it has at most one
//! option. Its source is one of the sandbox's addresses or unspecified. It announces no MAC other
//! than the frame's source. Its destination is one that no host forwards to, since discovery must
//! not carry data out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::OracleReason;

use super::{
    OracleIdentity,
    ethernet_header::EthernetHeader,
    ip_header::{FragmentPart, IpHeader},
    transport_header::PROTOCOL_ICMPV6,
};
use crate::MacAddr;

/// Judges an ARP packet.
pub(crate) fn judge_arp(identity: &OracleIdentity, ethernet: &EthernetHeader<'_>) -> OracleReason {
    let Some(packet) = ethernet.payload.get(..28) else { return OracleReason::Malformed };
    let ethernet_to_ipv4 = packet[..6] == [0, 1, 8, 0, 6, 4];
    let address =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let (sender, target) = (address(14), address(24));
    // An address probe has no sender address (RFC 5227).
    let claimed = if sender.is_unspecified() { target } else { sender };
    let own_mac = packet[8..14] == ethernet.source;
    // A request or a reply, in a frame without more than Ethernet's minimum padding.
    let plain = matches!(packet[6..8], [0, 1 | 2]) && 14 + ethernet.payload.len() <= 60;
    if ethernet_to_ipv4 && plain && own_mac && identity.addresses.contains(&claimed.into()) {
        OracleReason::Neighbor
    } else {
        OracleReason::NeighborSpoof
    }
}

/// Returns whether a packet is neighbour discovery or listener discovery. This is unknown for a
/// later fragment.
pub(crate) fn is_discovery(datagram: &IpHeader<'_>) -> bool {
    datagram.is_v6()
        && datagram.protocol == PROTOCOL_ICMPV6
        && !matches!(datagram.part, FragmentPart::Later(_))
        && datagram.payload.len() >= 8
        && matches!(datagram.payload[0], 130..=137 | 143)
}

/// Judges neighbour discovery and listener reports.
pub(crate) fn judge_discovery(
    identity: &OracleIdentity,
    ethernet: &EthernetHeader<'_>,
    datagram: &IpHeader<'_>,
) -> OracleReason {
    let message = DiscoveryMessage { identity, mac: ethernet.source, datagram };
    let needed = datagram.part == FragmentPart::Whole
        && message.is_from_own_address()
        && message.is_permitted();
    if needed { OracleReason::Neighbor } else { OracleReason::NeighborSpoof }
}

struct DiscoveryMessage<'a> {
    identity: &'a OracleIdentity,
    mac: MacAddr,
    datagram: &'a IpHeader<'a>,
}

impl DiscoveryMessage<'_> {
    fn is_permitted(&self) -> bool {
        let (datagram, message) = (self.datagram, self.datagram.payload);
        let to_link = matches!(datagram.destination, IpAddr::V6(to) if to.segments()[0] == 0xff02);
        // An advertisement has three flags where the other messages have reserved bits.
        let flags = if message[0] == 136 { 0xe0 } else { 0 };
        let reserved = [message[4] & !flags, message[5], message[6], message[7]];
        let on_link = datagram.hop_limit == 255
            && datagram.extension_bytes == 0
            && message[1] == 0
            && reserved == [0; 4]
            && self.stays_on_link();
        let from_nowhere = datagram.source.is_unspecified();
        match message[0] {
            // Listener report and listener done.
            131 | 132 => datagram.hop_limit == 1 && to_link && self.is_report(24),
            143 => {
                let groups = usize::from(u16::from_be_bytes([message[6], message[7]]));
                datagram.hop_limit == 1 && to_link && self.is_report(8 + 20 * groups)
            }
            // Router solicitation.
            133 => on_link && to_link && self.option_names_own_mac(8),
            // Neighbour solicitation. Without a source it is duplicate address detection for an
            // address of the sandbox.
            135 => {
                let target = self.target();
                // To a single address, it is about that address.
                let may_ask = target.is_some_and(|target| {
                    (self.is_own_address(target) || !from_nowhere)
                        && (to_link || datagram.destination == target)
                });
                on_link && may_ask && self.option_names_own_mac(24)
            }
            // Neighbour advertisement.
            136 => {
                on_link
                    && self.target().is_some_and(|target| self.is_own_address(target))
                    && self.option_names_own_mac(24)
            }
            // Only routers send queries, router advertisements and redirects.
            _ => false,
        }
    }

    /// Returns whether the packet is a listener report of exactly this length, with no extension
    /// header other than a router alert.
    fn is_report(&self, length: usize) -> bool {
        let message = self.datagram.payload;
        message.len() == length && message[1] == 0 && matches!(self.datagram.extension_bytes, 0 | 8)
    }

    fn target(&self) -> Option<Ipv6Addr> {
        let octets = self.datagram.payload.get(8..24)?;
        Some(<[u8; 16]>::try_from(octets).ok()?.into())
    }

    fn is_from_own_address(&self) -> bool {
        match self.datagram.source {
            IpAddr::V6(source) => source.is_unspecified() || self.is_own_address(source),
            IpAddr::V4(_) => false,
        }
    }

    /// Returns whether the address belongs to the sandbox. The link-local address derived from its
    /// MAC also does (RFC 4291, appendix A).
    fn is_own_address(&self, address: Ipv6Addr) -> bool {
        let [a, b, c, d, e, f] = self.mac;
        let interface = [a ^ 2, b, c, 0xff, 0xfe, d, e, f];
        let link_local = [[0xfe, 0x80, 0, 0, 0, 0, 0, 0], interface].concat();
        address.octets() == link_local[..] || self.identity.addresses.contains(&address.into())
    }

    /// Returns whether the destination is a group on the link, a link-local address, or an address
    /// in the /64 of one of the sandbox's addresses.
    fn stays_on_link(&self) -> bool {
        let IpAddr::V6(to) = self.datagram.destination else { return false };
        let near = |own: &IpAddr| match own {
            IpAddr::V6(own) => own.octets()[..8] == to.octets()[..8],
            IpAddr::V4(_) => false,
        };
        let link_local = to.segments()[0] & 0xffc0 == 0xfe80;
        to.segments()[0] == 0xff02 || link_local || self.identity.addresses.iter().any(near)
    }

    /// Returns whether at most one option follows `offset` bytes: the MAC of the frame, or a nonce
    /// (RFC 7527).
    fn option_names_own_mac(&self, offset: usize) -> bool {
        match self.datagram.payload.get(offset..) {
            Some([]) => true,
            Some([1 | 2, 1, mac @ ..]) => *mac == self.mac,
            Some([14, 1, nonce @ ..]) => nonce.len() == 6,
            _ => false,
        }
    }
}
