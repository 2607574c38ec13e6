//! Parses the chain of IPv6 extension headers up to the transport header.
//!
//! Sources: RFC 8200; RFC 4302 (AH).

use network_types::ip::Ipv6Hdr;
use policy_common::reason::Reason;

use crate::{
    ip_header::{ETHERNET_HEADER_LEN, FragmentPart, classify_fragment},
    packet_view::PacketView,
};

/// IPv6 extension headers that are parsed.
const NEXTHDR_HOP_BY_HOP: u8 = 0;
const NEXTHDR_ROUTING: u8 = 43;
const NEXTHDR_FRAGMENT: u8 = 44;
const NEXTHDR_AUTHENTICATION: u8 = 51;
const NEXTHDR_DESTINATION_OPTIONS: u8 = 60;
/// Maximum number of extension headers. RFC 8200 lists at most six.
const MAX_EXTENSION_HEADERS: usize = 6;

/// The state of parsing a chain of extension headers.
pub(crate) struct ExtensionChain {
    pub next_header: u8,
    pub fragment_part: FragmentPart,
    pub fragment_offset: u32,
    /// Whether the chain contains a fragment header, including an atomic one.
    pub has_fragment_header: bool,
    pub identification: u32,
    /// Length of the parsed headers in units of 8 octets.
    pub length_units: u8,
}

impl ExtensionChain {
    /// The state before the first extension header.
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

/// Parses extension headers up to the transport header, or up to the fragment header of a later
/// fragment, after which nothing can be parsed.
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
            // In units of four octets, minus two. RFC 4302 requires a multiple of eight octets for
            // IPv6.
            NEXTHDR_AUTHENTICATION if start[1].is_multiple_of(2) => start[1] / 2 + 1,
            NEXTHDR_AUTHENTICATION => return Err(Reason::ExtensionHeaders),
            _ => start[1].checked_add(1).ok_or(Reason::ExtensionHeaders)?,
        };
        chain.next_header = start[0];
        chain.length_units =
            chain.length_units.checked_add(length).ok_or(Reason::ExtensionHeaders)?;
        match chain.fragment_part {
            FragmentPart::LaterFragment => return Ok(()),
            // Extension headers after the fragment header could be longer in a later fragment,
            // which would then overwrite the transport header.
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

/// Parses a fragment header. A second one in the same chain is rejected.
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

/// Returns the same value as unknown to the verifier, so that it verifies the code that follows
/// once instead of once per number of extension headers.
///
/// The verifier tracks values through the stack in whole words. A byte that is not the first of its
/// word becomes an unknown byte.
#[inline(always)]
pub(crate) fn hide_from_verifier(value: u8) -> u8 {
    #[repr(align(8))]
    struct VolatileWord([u8; 8]);
    let mut word = VolatileWord([0; 8]);
    // SAFETY: both accesses are to a local. Volatile keeps the compiler from removing them.
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
