//! Ethernet, IPv4 and IPv6 headers: what a frame says about itself, once it is known to be whole.
//!
//! Sources: RFC 791, RFC 8200 (extension headers), RFC 4302 (AH).

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
};
use policy_common::reason::Reason;

use crate::{context::Hook, packet::Packet};

/// An address in network byte order; IPv4 as IPv4-mapped IPv6.
pub type Address = [u32; 4];

/// Length of the Ethernet header, where the network header begins.
pub const ETHERNET: usize = EthHdr::LEN;
pub const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
pub const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
pub const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
const ETHERTYPE_VLAN: [[u8; 2]; 3] = [[0x81, 0x00], [0x88, 0xa8], [0x91, 0x00]];

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;

/// IPv6 extension headers that are walked through.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;
/// Longest chain of extension headers that is walked; RFC 8200 names at most six.
const MAX_CHAIN: usize = 6;

/// The more-fragments flag and the offset in the IPv4 header.
const V4_MORE: u16 = 0x2000;
const V4_OFFSET: u16 = 0x1fff;

/// Which part of a datagram a packet is. Where a later one begins stands beside it: what only some of
/// the variants hold would be unset in the others, which old verifiers do not let a program copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, which holds the transport header.
    First,
    /// A later fragment.
    Later,
}

/// What an IP header says.
#[derive(Clone, Copy)]
pub struct Header {
    pub v6: bool,
    pub source: Address,
    pub destination: Address,
    pub protocol: u8,
    /// Hop limit or time to live.
    pub hops: u8,
    pub part: Part,
    /// Bytes of the datagram that come before this part.
    pub offset: u32,
    /// All of a datagram, and yet behind an IPv6 fragment header (RFC 6946).
    pub atomic: bool,
    /// The identification field as it was read from the wire.
    pub identification: u32,
    /// Where the transport header begins in the frame.
    pub transport: usize,
    /// Where the datagram ends in the frame; what follows is padding.
    pub end: usize,
}

/// The header of a frame that has none.
pub const NO_HEADER: Header = Header {
    v6: false,
    source: [0; 4],
    destination: [0; 4],
    protocol: 0,
    hops: 0,
    part: Part::Whole,
    offset: 0,
    atomic: false,
    identification: 0,
    transport: 0,
    end: 0,
};

/// The EtherType of a frame without VLAN tags.
#[inline(always)]
pub fn ethertype(hook: &Hook) -> Result<[u8; 2], Reason> {
    let ethertype = *hook.packet.read::<[u8; 2]>(12).ok_or(Reason::Malformed)?;
    if hook.vlan || ETHERTYPE_VLAN.contains(&ethertype) {
        return Err(Reason::Vlan);
    }
    Ok(ethertype)
}

/// The IPv4 header. Options are refused: a source route would take the packet elsewhere than its
/// destination says.
#[inline(always)]
pub fn ipv4(hook: &Hook, header: &mut Header) -> Result<(), Reason> {
    let ip = hook.packet.read::<Ipv4Hdr>(ETHERNET).ok_or(Reason::Malformed)?;
    if ip.vihl != 0x45 {
        let has_options = ip.vihl >> 4 == 4 && ip.vihl & 0xf > 5;
        return Err(if has_options { Reason::IpOptions } else { Reason::Malformed });
    }
    let total = usize::from(u16::from_be_bytes(ip.tot_len));
    let end = ETHERNET + total;
    if total < Ipv4Hdr::LEN || end > hook.length as usize {
        return Err(Reason::Malformed);
    }
    let fragment = u16::from_be_bytes(ip.frags);
    let offset = u32::from(fragment & V4_OFFSET) * 8;
    *header = Header {
        v6: false,
        source: mapped(ip.src_addr),
        destination: mapped(ip.dst_addr),
        protocol: ip.proto,
        hops: ip.ttl,
        part: part(offset, fragment & V4_MORE != 0),
        offset,
        atomic: false,
        identification: u32::from(u16::from_ne_bytes(ip.id)),
        transport: ETHERNET + Ipv4Hdr::LEN,
        end,
    };
    Ok(())
}

/// The IPv6 header and its chain of extension headers. Routing headers are refused: they take the
/// packet elsewhere than its destination says.
#[inline(always)]
pub fn ipv6(hook: &Hook, header: &mut Header) -> Result<(), Reason> {
    let ip = hook.packet.read::<Ipv6Hdr>(ETHERNET).ok_or(Reason::Malformed)?;
    let end = ETHERNET + Ipv6Hdr::LEN + usize::from(u16::from_be_bytes(ip.payload_len));
    if ip.vcf[0] >> 4 != 6 || end > hook.length as usize {
        return Err(Reason::Malformed);
    }
    let mut chain = Chain {
        protocol: ip.next_hdr,
        part: Part::Whole,
        offset: 0,
        fragmented: false,
        identification: 0,
        octets: 0,
    };
    let mut transport = ETHERNET + Ipv6Hdr::LEN;
    if is_extension(chain.protocol) {
        walk(&hook.packet, &mut chain)?;
        transport += usize::from(forget(chain.octets)) * 8;
    }
    if transport > end {
        return Err(Reason::ExtensionHeaders);
    }
    *header = Header {
        v6: true,
        source: words(ip.src_addr),
        destination: words(ip.dst_addr),
        protocol: chain.protocol,
        hops: ip.hop_limit,
        part: chain.part,
        offset: chain.offset,
        atomic: chain.fragmented && chain.part == Part::Whole,
        identification: chain.identification,
        transport,
        end,
    };
    Ok(())
}

/// How far a chain of extension headers has been walked.
struct Chain {
    protocol: u8,
    part: Part,
    offset: u32,
    /// Whether there was a fragment header; one that says it is the whole datagram counts, too.
    fragmented: bool,
    identification: u32,
    /// Length of the chain so far, in units of 8 octets.
    octets: u8,
}

/// Walks the extension headers up to the transport header, or up to the fragment header of a later
/// fragment, behind which nothing can be read.
#[inline(never)]
fn walk(packet: &Packet, chain: &mut Chain) -> Result<(), Reason> {
    for _ in 0..MAX_CHAIN {
        if !is_extension(chain.protocol) {
            return Ok(());
        }
        let offset = ETHERNET + Ipv6Hdr::LEN + usize::from(chain.octets) * 8;
        let start = *packet.read::<[u8; 8]>(offset).ok_or(Reason::ExtensionHeaders)?;
        let length = match chain.protocol {
            ROUTING => return Err(Reason::IpOptions),
            FRAGMENT => {
                fragment(chain, start)?;
                1
            }
            // In words of four octets, less two; RFC 4302 wants a multiple of eight.
            AUTHENTICATION if start[1].is_multiple_of(2) => start[1] / 2 + 1,
            AUTHENTICATION => return Err(Reason::ExtensionHeaders),
            _ => start[1].checked_add(1).ok_or(Reason::ExtensionHeaders)?,
        };
        chain.protocol = start[0];
        chain.octets = chain.octets.checked_add(length).ok_or(Reason::ExtensionHeaders)?;
        match chain.part {
            Part::Later => return Ok(()),
            // What stands between could be longer in a later fragment, which would then write over
            // the transport header.
            Part::First if is_extension(chain.protocol) && chain.protocol != FRAGMENT => {
                return Err(Reason::Fragment);
            }
            _ => {}
        }
    }
    if is_extension(chain.protocol) { Err(Reason::ExtensionHeaders) } else { Ok(()) }
}

/// Reads a fragment header; a second one in a chain is refused.
#[inline(always)]
fn fragment(chain: &mut Chain, start: [u8; 8]) -> Result<(), Reason> {
    if chain.fragmented {
        return Err(Reason::ExtensionHeaders);
    }
    chain.fragmented = true;
    let place = u16::from_be_bytes([start[2], start[3]]);
    chain.offset = u32::from(place & 0xfff8);
    chain.part = part(chain.offset, place & 1 != 0);
    chain.identification = u32::from_ne_bytes([start[4], start[5], start[6], start[7]]);
    Ok(())
}

/// The same value, of which the verifier no longer knows anything: it judges what follows once, and
/// not for every number of extension headers anew.
///
/// It follows values through the stack in whole words; a byte that is not the first of its word is
/// just some byte to it.
#[inline(always)]
fn forget(value: u8) -> u8 {
    #[repr(align(8))]
    struct Word([u8; 8]);
    let mut word = Word([0; 8]);
    // SAFETY: both accesses are to a local; volatile keeps the compiler from leaving them out.
    unsafe {
        core::ptr::write_volatile(&raw mut word.0[1], value);
        core::ptr::read_volatile(&raw const word.0[1])
    }
}

#[inline(always)]
fn part(offset: u32, more: bool) -> Part {
    match (offset, more) {
        (0, false) => Part::Whole,
        (0, true) => Part::First,
        _ => Part::Later,
    }
}

/// Whether a next-header number is that of an extension header.
#[inline(always)]
pub fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION_OPTIONS)
}

/// Whether everything that is judged lies in the first bytes: TCP or UDP right behind the IP
/// header.
#[inline(always)]
pub fn is_simple(packet: &Packet) -> bool {
    let protocol = match packet.read::<[u8; 2]>(12) {
        Some(&ETHERTYPE_IPV4) => packet.read::<[u8; 1]>(ETHERNET + 9),
        Some(&ETHERTYPE_IPV6) => packet.read::<[u8; 1]>(ETHERNET + 6),
        _ => None,
    };
    matches!(protocol, Some(&[TCP | UDP]))
}

/// An IPv4 address as an [`Address`].
#[inline(always)]
pub fn mapped(v4: [u8; 4]) -> Address {
    [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes(v4)]
}

/// Whether an IPv6 address is an IPv4-mapped one.
#[inline(always)]
pub fn is_mapped(address: Address) -> bool {
    address[0] | address[1] == 0 && address[2] == 0xffff_u32.to_be()
}

/// The 16 bytes of an address as an [`Address`].
#[inline(always)]
pub fn words(bytes: [u8; 16]) -> Address {
    // SAFETY: same size, and every bit pattern is a valid integer.
    unsafe { core::mem::transmute::<[u8; 16], Address>(bytes) }
}

/// An [`Address`] as 16 bytes.
#[inline(always)]
pub fn bytes(address: Address) -> [u8; 16] {
    // SAFETY: as in `words`.
    unsafe { core::mem::transmute::<Address, [u8; 16]>(address) }
}
