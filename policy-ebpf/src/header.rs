//! Ethernet, IPv4 and IPv6 headers: what a frame says about itself, once it is known to be whole.
//!
//! Sources: RFC 791, RFC 8200 (extension headers), RFC 4302 (AH).

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};
use policy_common::reason::Reason;

use crate::{packet_context::PacketContext, packet_view::PacketView};

/// An address in network byte order; IPv4 as IPv4-mapped IPv6.
pub type AddressWords = [u32; 4];

/// Length of the Ethernet header, where the network header begins.
pub const ETHERNET_HEADER_LEN: usize = EthHdr::LEN;
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const VLAN_ETHERTYPES: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];

pub const IPPROTO_TCP: u8 = 6;
pub const IPPROTO_UDP: u8 = 17;
pub const IPPROTO_ICMP: u8 = 1;
pub const IPPROTO_ICMPV6: u8 = 58;

/// IPv6 extension headers that are walked through.
const NEXTHDR_HOP_BY_HOP: u8 = 0;
const NEXTHDR_ROUTING: u8 = 43;
const NEXTHDR_FRAGMENT: u8 = 44;
const NEXTHDR_AUTHENTICATION: u8 = 51;
const NEXTHDR_DESTINATION_OPTIONS: u8 = 60;
/// Longest chain of extension headers that is walked; RFC 8200 names at most six.
const MAX_EXTENSION_HEADERS: usize = 6;

/// The more-fragments flag and the offset in the IPv4 header.
const IPV4_MORE_FRAGMENTS: u16 = 0x2000;
const IPV4_FRAGMENT_OFFSET_MASK: u16 = 0x1fff;

/// Which part of a datagram a packet is. Where a later one begins stands beside it: what only some of
/// the variants hold would be unset in the others, which old verifiers do not let a program copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FragmentPart {
    /// All of it.
    WholeDatagram,
    /// The first fragment, which holds the transport header.
    FirstFragment,
    /// A later fragment.
    LaterFragment,
}

/// What an IP header says.
#[derive(Clone, Copy)]
pub struct IpHeader {
    pub is_v6: bool,
    pub source: AddressWords,
    pub destination: AddressWords,
    pub protocol: u8,
    /// Hop limit or time to live.
    pub hop_limit: u8,
    pub fragment_part: FragmentPart,
    /// Bytes of the datagram that come before this part.
    pub fragment_offset: u32,
    /// All of a datagram, and yet behind an IPv6 fragment header (RFC 6946).
    pub is_atomic_fragment: bool,
    /// The identification field as it was read from the wire.
    pub identification: u32,
    /// Where the transport header begins in the frame.
    pub transport_offset: usize,
    /// Where the datagram ends in the frame; what follows is padding.
    pub datagram_end: usize,
}

/// The header of a frame that has none.
pub const EMPTY_IP_HEADER: IpHeader = IpHeader {
    is_v6: false,
    source: [0; 4],
    destination: [0; 4],
    protocol: 0,
    hop_limit: 0,
    fragment_part: FragmentPart::WholeDatagram,
    fragment_offset: 0,
    is_atomic_fragment: false,
    identification: 0,
    transport_offset: 0,
    datagram_end: 0,
};

/// The EtherType of a frame without VLAN tags.
#[inline(always)]
pub fn read_ethertype(hook: &PacketContext) -> Result<[u8; 2], Reason> {
    let ethertype = *hook.packet_view.read_at::<[u8; 2]>(12).ok_or(Reason::Malformed)?;
    if hook.has_vlan_tag || VLAN_ETHERTYPES.contains(&ethertype) {
        return Err(Reason::Vlan);
    }
    Ok(ethertype)
}

/// The IPv4 header. Options are refused: a source route would take the packet elsewhere than its
/// destination says.
#[inline(always)]
pub fn parse_ipv4(hook: &PacketContext, header: &mut IpHeader) -> Result<(), Reason> {
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

/// The IPv6 header and its chain of extension headers. Routing headers are refused: they take the
/// packet elsewhere than its destination says.
#[inline(always)]
pub fn parse_ipv6(hook: &PacketContext, header: &mut IpHeader) -> Result<(), Reason> {
    let ip = hook.packet_view.read_at::<Ipv6Hdr>(ETHERNET_HEADER_LEN).ok_or(Reason::Malformed)?;
    let end = ETHERNET_HEADER_LEN + Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(ip.payload_len));
    if ip.vcf[0] >> 4 != 6 || end > hook.frame_length as usize {
        return Err(Reason::Malformed);
    }
    let mut chain = ExtensionChain {
        next_header: ip.next_hdr,
        fragment_part: FragmentPart::WholeDatagram,
        fragment_offset: 0,
        has_fragment_header: false,
        identification: 0,
        length_units: 0,
    };
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

/// How far a chain of extension headers has been walked.
struct ExtensionChain {
    next_header: u8,
    fragment_part: FragmentPart,
    fragment_offset: u32,
    /// Whether there was a fragment header; one that says it is the whole datagram counts, too.
    has_fragment_header: bool,
    identification: u32,
    /// Length of the chain so far, in units of 8 octets.
    length_units: u8,
}

/// Walks the extension headers up to the transport header, or up to the fragment header of a later
/// fragment, behind which nothing can be read.
#[inline(never)]
fn walk_extensions(packet: &PacketView, chain: &mut ExtensionChain) -> Result<(), Reason> {
    for _ in 0..MAX_EXTENSION_HEADERS {
        if !is_extension_header(chain.next_header) {
            return Ok(());
        }
        let offset = ETHERNET_HEADER_LEN + Ipv6Hdr::LEN + usize::from(chain.length_units) * 8;
        let start = *packet.read_at::<[u8; 8]>(offset).ok_or(Reason::ExtensionHeaders)?;
        let length = match chain.next_header {
            NEXTHDR_ROUTING => return Err(Reason::IpOptions),
            NEXTHDR_FRAGMENT => {
                parse_fragment_header(chain, start)?;
                1
            }
            // In words of four octets, less two; RFC 4302 wants a multiple of eight.
            NEXTHDR_AUTHENTICATION if start[1].is_multiple_of(2) => start[1] / 2 + 1,
            NEXTHDR_AUTHENTICATION => return Err(Reason::ExtensionHeaders),
            _ => start[1].checked_add(1).ok_or(Reason::ExtensionHeaders)?,
        };
        chain.next_header = start[0];
        chain.length_units =
            chain.length_units.checked_add(length).ok_or(Reason::ExtensionHeaders)?;
        match chain.fragment_part {
            FragmentPart::LaterFragment => return Ok(()),
            // What stands between could be longer in a later fragment, which would then write over
            // the transport header.
            FragmentPart::FirstFragment
                if is_extension_header(chain.next_header)
                    && chain.next_header != NEXTHDR_FRAGMENT =>
            {
                return Err(Reason::Fragment);
            }
            _ => {}
        }
    }
    if is_extension_header(chain.next_header) { Err(Reason::ExtensionHeaders) } else { Ok(()) }
}

/// Reads a fragment header; a second one in a chain is refused.
#[inline(always)]
fn parse_fragment_header(chain: &mut ExtensionChain, start: [u8; 8]) -> Result<(), Reason> {
    if chain.has_fragment_header {
        return Err(Reason::ExtensionHeaders);
    }
    chain.has_fragment_header = true;
    let place = u16::from_be_bytes([start[2], start[3]]);
    chain.fragment_offset = u32::from(place & 0xfff8);
    chain.fragment_part = classify_fragment(chain.fragment_offset, place & 1 != 0);
    chain.identification = u32::from_ne_bytes([start[4], start[5], start[6], start[7]]);
    Ok(())
}

/// The same value, of which the verifier no longer knows anything: it judges what follows once, and
/// not for every number of extension headers anew.
///
/// It follows values through the stack in whole words; a byte that is not the first of its word is
/// just some byte to it.
#[inline(always)]
fn hide_from_verifier(value: u8) -> u8 {
    #[repr(align(8))]
    struct VolatileWord([u8; 8]);
    let mut word = VolatileWord([0; 8]);
    // SAFETY: both accesses are to a local; volatile keeps the compiler from leaving them out.
    unsafe {
        core::ptr::write_volatile(&raw mut word.0[1], value);
        core::ptr::read_volatile(&raw const word.0[1])
    }
}

#[inline(always)]
fn classify_fragment(offset: u32, more: bool) -> FragmentPart {
    match (offset, more) {
        (0, false) => FragmentPart::WholeDatagram,
        (0, true) => FragmentPart::FirstFragment,
        _ => FragmentPart::LaterFragment,
    }
}

/// Whether a next-header number is that of an extension header.
#[inline(always)]
pub fn is_extension_header(protocol: u8) -> bool {
    matches!(
        protocol,
        NEXTHDR_HOP_BY_HOP
            | NEXTHDR_ROUTING
            | NEXTHDR_FRAGMENT
            | NEXTHDR_AUTHENTICATION
            | NEXTHDR_DESTINATION_OPTIONS
    )
}

/// Whether everything that is judged lies in the first bytes: TCP or UDP right behind the IP
/// header.
#[inline(always)]
pub fn has_simple_headers(packet: &PacketView) -> bool {
    let protocol = match packet.read_at::<[u8; 2]>(12) {
        Some(&ETHERTYPE_IPV4) => packet.read_at::<[u8; 1]>(ETHERNET_HEADER_LEN + 9),
        Some(&ETHERTYPE_IPV6) => packet.read_at::<[u8; 1]>(ETHERNET_HEADER_LEN + 6),
        _ => None,
    };
    matches!(protocol, Some(&[IPPROTO_TCP | IPPROTO_UDP]))
}

/// An IPv4 address as an [`Address`].
#[inline(always)]
pub fn ipv4_mapped(v4: [u8; 4]) -> AddressWords {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(v4)]
}

/// Whether an IPv6 address is an IPv4-mapped one.
#[inline(always)]
pub fn is_ipv4_mapped(address: AddressWords) -> bool {
    address[0] | address[1] == 0 && address[2] == 0xffff_u32.to_be()
}

/// The 16 bytes of an address as an [`Address`].
#[inline(always)]
pub fn address_from_bytes(bytes: [u8; 16]) -> AddressWords {
    // SAFETY: same size, and every bit pattern is a valid integer.
    unsafe { core::mem::transmute::<[u8; 16], AddressWords>(bytes) }
}

/// An [`Address`] as 16 bytes.
#[inline(always)]
pub fn address_to_bytes(address: AddressWords) -> [u8; 16] {
    // SAFETY: as in `words`.
    unsafe { core::mem::transmute::<AddressWords, [u8; 16]>(address) }
}
