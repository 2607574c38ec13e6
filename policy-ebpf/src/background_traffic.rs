//! Denials that every guest causes and that say nothing about it. They are counted, but not reported
//! as events, among which they would hide what matters:
//!
//! - IGMP to a multicast group (RFC 3376);
//! - name queries to the groups of the link: mDNS (RFC 6762) and LLMNR (RFC 4795);
//! - discovery and group traffic of a link-local address with a random interface identifier
//!   (RFC 7217), which the sandbox has, but the agent does not know.
//!
//! An identifier that is derived from a MAC, or that somebody chose (`fe80::1`), may be another
//! host's: that is reported as spoofing. So are advertisements, whatever they say.

use policy_common::reason::Reason;

use crate::{
    ip_header::{
        AddressWords, ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_UDP, IpHeader,
        address_from_bytes,
    },
    neighbor::{
        MLD_DONE, MLD_REPORT, MLD_REPORT_V2, ND_NEIGHBOR_SOLICITATION, ND_ROUTER_SOLICITATION,
        is_link_multicast, is_unspecified,
    },
    packet_context::PacketContext,
    parsed_headers::ParsedHeaders,
};

const IPPROTO_IGMP: u8 = 2;
const MDNS_PORT: u16 = 5353;
const LLMNR_PORT: u16 = 5355;

/// Whether a denied packet is background traffic.
#[inline(never)]
pub(crate) fn is_background(
    hook: &PacketContext,
    headers: &ParsedHeaders,
    reason_code: u8,
) -> bool {
    let header = &headers.ip_header;
    match Reason::from_code(reason_code) {
        Some(Reason::IpOptions) => is_igmp(hook, headers),
        Some(Reason::PlatformDeny | Reason::DenyOut | Reason::WouldDeny) => {
            is_igmp(hook, headers) || is_name_query(headers)
        }
        Some(Reason::SpoofedIp) => {
            headers.ethertype == ETHERTYPE_IPV6
                && is_random_link_local(header.source)
                && is_link_multicast(header.destination)
        }
        Some(Reason::NeighborSpoof) => {
            headers.ethertype == ETHERTYPE_IPV6 && is_own_discovery(hook, header)
        }
        _ => false,
    }
}

/// Reads the header itself: reports carry an option (router alert), with which no header is parsed.
#[inline(always)]
fn is_igmp(hook: &PacketContext, headers: &ParsedHeaders) -> bool {
    let Some(ip) = hook.packet_view.read_at::<[u8; 20]>(ETHERNET_HEADER_LEN) else { return false };
    headers.ethertype == ETHERTYPE_IPV4 && ip[9] == IPPROTO_IGMP && ip[16] >> 4 == 0xe
}

#[inline(always)]
fn is_name_query(headers: &ParsedHeaders) -> bool {
    let header = &headers.ip_header;
    let to_link = if header.is_v6 {
        is_link_multicast(header.destination)
    } else {
        u32::from_be(header.destination[3]) >> 8 == 0x00e0_0000
    };
    let port = headers.transport_header.destination_port;
    to_link && header.protocol == IPPROTO_UDP && matches!(port, MDNS_PORT | LLMNR_PORT)
}

/// Whether a message asks or reports for a random link-local address. Without a source, a
/// solicitation asks whether its target is in use (RFC 4862, 5.4).
#[inline(always)]
fn is_own_discovery(hook: &PacketContext, header: &IpHeader) -> bool {
    let Some(start) = hook.packet_view.read_at::<[u8; 8]>(header.transport_offset) else {
        return false;
    };
    let from_own = is_random_link_local(header.source);
    match start[0] {
        MLD_REPORT | MLD_DONE | MLD_REPORT_V2 | ND_ROUTER_SOLICITATION => from_own,
        ND_NEIGHBOR_SOLICITATION if is_unspecified(header.source) => {
            let target = hook.packet_view.read_at::<[u8; 16]>(header.transport_offset + 8);
            target.is_some_and(|target| is_random_link_local(address_from_bytes(*target)))
        }
        ND_NEIGHBOR_SOLICITATION => from_own,
        _ => false,
    }
}

/// Whether an address is in fe80::/64 and its interface identifier is neither derived from a MAC
/// (RFC 4291, appendix A) nor small.
#[inline(always)]
fn is_random_link_local(address: AddressWords) -> bool {
    let [first, second, third, fourth] = address.map(u32::from_be);
    let from_mac = third & 0xff == 0xff && fourth >> 24 == 0xfe;
    first == 0xfe80_0000 && second == 0 && third != 0 && !from_mac
}
