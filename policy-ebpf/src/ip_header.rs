//! Parses Ethernet, IPv4 and IPv6 headers and checks that they are complete.
//!
//! Sources: RFC 791, RFC 8200.

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};
use policy_common::reason::Reason;

use crate::{
    extension_headers::{ExtensionChain, hide_from_verifier, is_extension_header, walk_extensions},
    packet_context::PacketContext,
    packet_view::PacketView,
};

/// An address in network byte order. IPv4 addresses are IPv4-mapped IPv6 addresses.
pub(crate) type AddressWords = [u32; 4];

/// Length of the Ethernet header, and offset of the network header.
pub(crate) const ETHERNET_HEADER_LEN: usize = EthHdr::LEN;
pub(crate) const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub(crate) const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub(crate) const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const VLAN_ETHERTYPES: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];

pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;
pub(crate) const IPPROTO_SCTP: u8 = 132;

/// The more-fragments flag and the fragment offset in the IPv4 header.
pub(crate) const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const IPV4_FRAGMENT_OFFSET_MASK: u16 = 0x1fff;

/// The part of a datagram that a packet carries. The fragment offset is a separate field: a field
/// of only some variants would be uninitialised in the others, and old verifiers do not let a
/// program copy it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FragmentPart {
    /// A whole datagram.
    WholeDatagram,
    /// The first fragment, which contains the transport header.
    FirstFragment,
    /// A later fragment.
    LaterFragment,
}

/// A parsed IP header.
#[derive(Clone, Copy)]
pub(crate) struct IpHeader {
    pub is_v6: bool,
    pub source: AddressWords,
    pub destination: AddressWords,
    pub protocol: u8,
    /// Hop limit (IPv6) or time to live (IPv4).
    pub hop_limit: u8,
    pub fragment_part: FragmentPart,
    /// Offset of this fragment in the datagram, in bytes.
    pub fragment_offset: u32,
    /// Whether it is a whole datagram with an IPv6 fragment header (RFC 6946).
    pub is_atomic_fragment: bool,
    /// The identification field as on the wire.
    pub identification: u32,
    /// Offset of the transport header in the frame.
    pub transport_offset: usize,
    /// Offset of the end of the datagram in the frame. Padding may follow.
    pub datagram_end: usize,
}

/// Reads the EtherType. Frames with VLAN tags are rejected.
#[inline(always)]
pub(crate) fn read_ethertype(hook: &PacketContext) -> Result<[u8; 2], Reason> {
    let ethertype = *hook.packet_view.read_at::<[u8; 2]>(12).ok_or(Reason::Malformed)?;
    if hook.has_vlan_tag || VLAN_ETHERTYPES.contains(&ethertype) {
        return Err(Reason::Vlan);
    }
    Ok(ethertype)
}

/// Parses the IPv4 header. Options are rejected, because a source route would override the
/// destination address.
#[inline(always)]
pub(crate) fn parse_ipv4(hook: &PacketContext, header: &mut IpHeader) -> Result<(), Reason> {
    let ip = hook.packet_view.read_at::<Ipv4Hdr>(ETHERNET_HEADER_LEN).ok_or(Reason::Malformed)?;
    if ip.vihl != 0x45 {
        let has_options = ip.vihl >> 4 == 4 && ip.vihl & 0xf > 5;
        return Err(if has_options { Reason::IpOptions } else { Reason::Malformed });
    }
    let total = usize::from(u16::from_be_bytes(ip.tot_len));
    let end = ETHERNET_HEADER_LEN + total;
    if total < Ipv4Hdr::LEN || end > hook.frame_length as usize {
        return Err(Reason::Malformed);
    }
    let fragment = u16::from_be_bytes(ip.frags);
    let offset = u32::from(fragment & IPV4_FRAGMENT_OFFSET_MASK) * 8;
    *header = IpHeader {
        is_v6: false,
        source: ipv4_mapped(ip.src_addr),
        destination: ipv4_mapped(ip.dst_addr),
        protocol: ip.proto,
        hop_limit: ip.ttl,
        fragment_part: classify_fragment(offset, fragment & IPV4_MORE_FRAGMENTS != 0),
        fragment_offset: offset,
        is_atomic_fragment: false,
        identification: u32::from(u16::from_ne_bytes(ip.id)),
        transport_offset: ETHERNET_HEADER_LEN + Ipv4Hdr::LEN,
        datagram_end: end,
    };
    Ok(())
}

/// Parses the IPv6 header and its extension headers. Routing headers are rejected, because they
/// would override the destination address.
#[inline(always)]
pub(crate) fn parse_ipv6(hook: &PacketContext, header: &mut IpHeader) -> Result<(), Reason> {
    let ip = hook.packet_view.read_at::<Ipv6Hdr>(ETHERNET_HEADER_LEN).ok_or(Reason::Malformed)?;
    let end = ETHERNET_HEADER_LEN + Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(ip.payload_len));
    if ip.vcf[0] >> 4 != 6 || end > hook.frame_length as usize {
        return Err(Reason::Malformed);
    }
    let mut chain = ExtensionChain::starting_with(ip.next_hdr);
    let mut transport = ETHERNET_HEADER_LEN + Ipv6Hdr::LEN;
    if is_extension_header(chain.next_header) {
        walk_extensions(&hook.packet_view, &mut chain)?;
        transport += usize::from(hide_from_verifier(chain.length_units)) * 8;
    }
    if transport > end {
        return Err(Reason::ExtensionHeaders);
    }
    *header = IpHeader {
        is_v6: true,
        source: address_from_bytes(ip.src_addr),
        destination: address_from_bytes(ip.dst_addr),
        protocol: chain.next_header,
        hop_limit: ip.hop_limit,
        fragment_part: chain.fragment_part,
        fragment_offset: chain.fragment_offset,
        is_atomic_fragment: chain.has_fragment_header
            && chain.fragment_part == FragmentPart::WholeDatagram,
        identification: chain.identification,
        transport_offset: transport,
        datagram_end: end,
    };
    Ok(())
}

/// Classifies a fragment by its offset and its more-fragments flag.
#[inline(always)]
pub(crate) fn classify_fragment(offset: u32, more: bool) -> FragmentPart {
    match (offset, more) {
        (0, false) => FragmentPart::WholeDatagram,
        (0, true) => FragmentPart::FirstFragment,
        _ => FragmentPart::LaterFragment,
    }
}

/// Whether TCP or UDP directly follows the IP header, so that a short prefix of the frame contains
/// all headers.
#[inline(always)]
pub(crate) fn has_simple_headers(packet: &PacketView) -> bool {
    let protocol = match packet.read_at::<[u8; 2]>(12) {
        Some(&ETHERTYPE_IPV4) => packet.read_at::<[u8; 1]>(ETHERNET_HEADER_LEN + 9),
        Some(&ETHERTYPE_IPV6) => packet.read_at::<[u8; 1]>(ETHERNET_HEADER_LEN + 6),
        _ => None,
    };
    matches!(protocol, Some(&[IPPROTO_TCP | IPPROTO_UDP]))
}

/// Converts an IPv4 address to an [`AddressWords`].
#[inline(always)]
pub(crate) fn ipv4_mapped(v4: [u8; 4]) -> AddressWords {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(v4)]
}

/// Whether an IPv6 address is IPv4-mapped.
#[inline(always)]
pub(crate) fn is_ipv4_mapped(address: AddressWords) -> bool {
    address[0] | address[1] == 0 && address[2] == 0xffff_u32.to_be()
}

/// Converts 16 bytes to an [`AddressWords`].
#[inline(always)]
pub(crate) fn address_from_bytes(bytes: [u8; 16]) -> AddressWords {
    // SAFETY: the sizes are equal, and every bit pattern is a valid integer.
    unsafe { core::mem::transmute::<[u8; 16], AddressWords>(bytes) }
}

/// Converts an [`AddressWords`] to 16 bytes.
#[inline(always)]
pub(crate) fn address_to_bytes(address: AddressWords) -> [u8; 16] {
    // SAFETY: as in `address_from_bytes`.
    unsafe { core::mem::transmute::<AddressWords, [u8; 16]>(address) }
}
