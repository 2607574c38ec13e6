//! The chain of IPv6 extension headers, up to the transport header.
//!
//! Sources: RFC 8200; RFC 4302 (AH).

use network_types::ip::Ipv6Hdr;
use policy_common::reason::Reason;

use crate::{
    ip_header::{ETHERNET_HEADER_LEN, FragmentPart, classify_fragment},
    packet_view::PacketView,
};

/// IPv6 extension headers that are walked through.
const NEXTHDR_HOP_BY_HOP: u8 = 0;
const NEXTHDR_ROUTING: u8 = 43;
const NEXTHDR_FRAGMENT: u8 = 44;
const NEXTHDR_AUTHENTICATION: u8 = 51;
const NEXTHDR_DESTINATION_OPTIONS: u8 = 60;
/// Longest chain of extension headers that is walked; RFC 8200 names at most six.
const MAX_EXTENSION_HEADERS: usize = 6;

/// How far a chain of extension headers has been walked.
pub(crate) struct ExtensionChain {
    pub next_header: u8,
    pub fragment_part: FragmentPart,
    pub fragment_offset: u32,
    /// Whether there was a fragment header; one that says it is the whole datagram counts, too.
    pub has_fragment_header: bool,
    pub identification: u32,
    /// Length of the chain so far, in units of 8 octets.
    pub length_units: u8,
}

impl ExtensionChain {
    /// A chain of which nothing has been walked.
    #[inline(always)]
    pub(crate) fn starting_with(next_header: u8) -> Self {
        Self {
            next_header,
            fragment_part: FragmentPart::WholeDatagram,
            fragment_offset: 0,
            has_fragment_header: false,
            identification: 0,
            length_units: 0,
        }
    }
}

/// Walks the extension headers up to the transport header, or up to the fragment header of a later
/// fragment, behind which nothing can be read.
#[inline(never)]
pub(crate) fn walk_extensions(
    packet: &PacketView,
    chain: &mut ExtensionChain,
) -> Result<(), Reason> {
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
    let offset_and_flags = u16::from_be_bytes([start[2], start[3]]);
    chain.fragment_offset = u32::from(offset_and_flags & 0xfff8);
    chain.fragment_part = classify_fragment(chain.fragment_offset, offset_and_flags & 1 != 0);
    chain.identification = u32::from_ne_bytes([start[4], start[5], start[6], start[7]]);
    Ok(())
}

/// The same value, of which the verifier no longer knows anything: it judges what follows once, and
/// not for every number of extension headers anew.
///
/// It follows values through the stack in whole words; a byte that is not the first of its word is
/// just some byte to it.
#[inline(always)]
pub(crate) fn hide_from_verifier(value: u8) -> u8 {
    #[repr(align(8))]
    struct VolatileWord([u8; 8]);
    let mut word = VolatileWord([0; 8]);
    // SAFETY: both accesses are to a local; volatile keeps the compiler from leaving them out.
    unsafe {
        core::ptr::write_volatile(&raw mut word.0[1], value);
        core::ptr::read_volatile(&raw const word.0[1])
    }
}

/// Whether a next-header number is that of an extension header.
#[inline(always)]
pub(crate) fn is_extension_header(protocol: u8) -> bool {
    matches!(
        protocol,
        NEXTHDR_HOP_BY_HOP
            | NEXTHDR_ROUTING
            | NEXTHDR_FRAGMENT
            | NEXTHDR_AUTHENTICATION
            | NEXTHDR_DESTINATION_OPTIONS
    )
}
