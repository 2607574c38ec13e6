//! Line 2: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861) about the sandbox's own addresses,
//! and multicast listener reports (RFC 3810).
//!
//! Discovery must stay on the link and contain nothing but its own fields. A solicitation that the
//! host would forward could exfiltrate data, in its destination or after its fields.

use policy_common::{endpoint::SandboxEndpoint, reason::Reason};

use crate::{
    endpoint::{owns_ipv4, owns_ipv6, same_address, same_mac},
    forwarding::would_be_forwarded,
    ip_header::{AddressWords, ETHERNET_HEADER_LEN, FragmentPart, IpHeader, address_from_bytes},
    packet_context::PacketContext,
    packet_view::PacketView,
};

/// Offset of ICMPv6 without extension headers, which discovery must not have (RFC 6980).
const ICMPV6_OFFSET: usize = ETHERNET_HEADER_LEN + 40;
/// Listener reports carry the router alert in a hop-by-hop header (RFC 3810, 5).
const ICMPV6_OFFSET_WITH_ALERT: usize = ICMPV6_OFFSET + 8;
/// Minimum length of an Ethernet frame, which shorter frames are padded to.
const MIN_ETHERNET_FRAME_LEN: u32 = 60;

/// Hardware type Ethernet, protocol type IPv4, address lengths 6 and 4.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 8, 0, 6, 4];

const MLD_QUERY: u8 = 130;
pub(crate) const MLD_REPORT: u8 = 131;
pub(crate) const MLD_DONE: u8 = 132;
pub(crate) const ND_ROUTER_SOLICITATION: u8 = 133;
pub(crate) const ND_NEIGHBOR_SOLICITATION: u8 = 135;
const ND_NEIGHBOR_ADVERTISEMENT: u8 = 136;
const ND_REDIRECT: u8 = 137;
pub(crate) const MLD_REPORT_V2: u8 = 143;

const ND_OPTION_SOURCE_MAC: u8 = 1;
const ND_OPTION_TARGET_MAC: u8 = 2;
/// RFC 3971. Linux sends it in duplicate address detection (RFC 7527).
const ND_OPTION_NONCE: u8 = 14;

/// Judges ARP, which must come from the sandbox's MAC and be about the sandbox's address. In a
/// probe (sender 0.0.0.0, RFC 5227) the target must be the sandbox's address.
#[inline(never)]
pub(crate) fn judge_arp(hook: &PacketContext, sandbox: &SandboxEndpoint, mac: &[u8; 6]) -> Reason {
    let Some(form) = hook.packet_view.read_at::<[u8; 6]>(ETHERNET_HEADER_LEN) else {
        return Reason::Malformed;
    };
    let Some(operation) = hook.packet_view.read_at::<[u8; 2]>(ETHERNET_HEADER_LEN + 6) else {
        return Reason::Malformed;
    };
    let Some(body) = hook.packet_view.read_at::<[u8; 20]>(ETHERNET_HEADER_LEN + 8) else {
        return Reason::Malformed;
    };
    let same_form = form[0] == ARP_ETHERNET_IPV4[0]
        && form[1] == ARP_ETHERNET_IPV4[1]
        && form[2] == ARP_ETHERNET_IPV4[2]
        && form[3] == ARP_ETHERNET_IPV4[3]
        && form[4] == ARP_ETHERNET_IPV4[4]
        && form[5] == ARP_ETHERNET_IPV4[5];
    let sender_mac = [body[0], body[1], body[2], body[3], body[4], body[5]];
    let sender = u32::from_ne_bytes([body[6], body[7], body[8], body[9]]);
    let target = u32::from_ne_bytes([body[16], body[17], body[18], body[19]]);
    let claimed = if sender == 0 { target } else { sender };
    // A request or a reply, with no data after it.
    let plain = operation[0] == 0
        && matches!(operation[1], 1 | 2)
        && hook.frame_length <= MIN_ETHERNET_FRAME_LEN;
    if same_form && plain && same_mac(sender_mac, *mac) && owns_ipv4(sandbox, claimed) {
        return Reason::Neighbor;
    }
    Reason::NeighborSpoof
}

/// Whether an ICMPv6 packet is neighbour discovery or multicast listener discovery. Later fragments
/// have no type.
#[inline(always)]
pub(crate) fn is_discovery(packet: &PacketView, header: &IpHeader) -> bool {
    if header.fragment_part == FragmentPart::LaterFragment
        || header.transport_offset + 8 > header.datagram_end
    {
        return false;
    }
    let Some(start) = packet.read_at::<[u8; 8]>(header.transport_offset) else { return false };
    matches!(start[0], MLD_QUERY..=ND_REDIRECT | MLD_REPORT_V2)
}

/// Judges neighbour discovery and listener reports.
#[inline(never)]
pub(crate) fn judge_discovery(
    hook: &PacketContext,
    header: &IpHeader,
    sandbox: &SandboxEndpoint,
    mac: &[u8; 6],
) -> Reason {
    let mac = *mac;
    let Some(icmp) = hook.packet_view.read_at::<[u8; 8]>(header.transport_offset) else {
        return Reason::Malformed;
    };
    let own = OwnAddresses { sandbox, link_local: link_local_of_mac(mac) };
    let genuine = match icmp[0] {
        MLD_REPORT | MLD_DONE | MLD_REPORT_V2 => {
            header.hop_limit == 1
                && is_link_multicast(header.destination)
                && is_listener_report(header, icmp)
        }
        ND_ROUTER_SOLICITATION => {
            stays_on_link(hook, header, icmp, &own)
                && is_link_multicast(header.destination)
                && has_genuine_option(hook, header, 8, mac)
        }
        ND_NEIGHBOR_SOLICITATION => {
            stays_on_link(hook, header, icmp, &own)
                && is_genuine_neighbor_message(hook, header, &own, mac, false)
        }
        ND_NEIGHBOR_ADVERTISEMENT => {
            stays_on_link(hook, header, icmp, &own)
                && is_genuine_neighbor_message(hook, header, &own, mac, true)
        }
        _ => false,
    };
    let from_own = is_unspecified(header.source) || own.contains(header.source);
    if genuine && from_own && header.fragment_part == FragmentPart::WholeDatagram {
        return Reason::Neighbor;
    }
    Reason::NeighborSpoof
}

/// The addresses of a sandbox, including its link-local address.
struct OwnAddresses<'a> {
    sandbox: &'a SandboxEndpoint,
    link_local: AddressWords,
}

impl OwnAddresses<'_> {
    #[inline(always)]
    fn contains(&self, address: AddressWords) -> bool {
        same_address(address, self.link_local) || owns_ipv6(self.sandbox, address)
    }

    /// Whether the address is in the /64 of one of the sandbox's addresses.
    #[inline(always)]
    fn shares_subnet_with(&self, address: AddressWords) -> bool {
        let near = |i: usize| {
            let [high, low, ..] = self.sandbox.ipv6_addresses[i];
            high == address[0] && low == address[1] && (high | low) != 0
        };
        near(0) || near(1) || near(2) || near(3)
    }
}

/// Whether a listener report contains its groups and nothing else: one (RFC 2710), or as many as it
/// declares, without sources (RFC 3810, 5.2).
#[inline(always)]
fn is_listener_report(header: &IpHeader, icmp: &[u8; 8]) -> bool {
    let length = header.datagram_end - header.transport_offset;
    let fits = match icmp[0] {
        MLD_REPORT_V2 => length == 8 + 20 * usize::from(icmp[7]) && icmp[6] == 0,
        _ => length == 24,
    };
    fits && icmp[1] == 0
        && (header.transport_offset == ICMPV6_OFFSET
            || header.transport_offset == ICMPV6_OFFSET_WITH_ALERT)
}

/// Checks the fields that RFC 4861 requires (hop limit 255, code 0, reserved bits zero) and that
/// the host will not forward the packet.
#[inline(always)]
fn stays_on_link(
    hook: &PacketContext,
    header: &IpHeader,
    icmp: &[u8; 8],
    own: &OwnAddresses<'_>,
) -> bool {
    let to = header.destination;
    let flags = if icmp[0] == ND_NEIGHBOR_ADVERTISEMENT { 0xe0 } else { 0 };
    let reserved = (icmp[4] & !flags) | icmp[5] | icmp[6] | icmp[7];
    header.transport_offset == ICMPV6_OFFSET
        && header.hop_limit == 255
        && icmp[1] | reserved == 0
        && (is_link_multicast(to)
            || is_link_local(to)
            || own.shares_subnet_with(to) && !would_be_forwarded(hook, header))
}

/// A solicitation may have any target, unless it has no source address yet. Sent to a single
/// address, it must be about that address: it verifies a known neighbour (RFC 4861, 7.3.3). An
/// advertisement must be about the sandbox's own address.
#[inline(always)]
fn is_genuine_neighbor_message(
    hook: &PacketContext,
    header: &IpHeader,
    own: &OwnAddresses<'_>,
    mac: [u8; 6],
    advertises: bool,
) -> bool {
    let Some(target) = hook.packet_view.read_at::<[u8; 16]>(header.transport_offset + 8) else {
        return false;
    };
    let target = address_from_bytes(*target);
    let about_own = own.contains(target);
    let may_be_foreign = !advertises && !is_unspecified(header.source);
    let to_target = is_link_multicast(header.destination)
        || advertises
        || same_address(target, header.destination);
    header.transport_offset + 24 <= header.datagram_end
        && (about_own || may_be_foreign)
        && to_target
        && has_genuine_option(hook, header, 24, mac)
}

/// Whether at most one option follows and, if it contains a MAC, that is the sandbox's.
#[inline(always)]
fn has_genuine_option(
    hook: &PacketContext,
    header: &IpHeader,
    offset: usize,
    mac: [u8; 6],
) -> bool {
    let start = header.transport_offset + offset;
    if start == header.datagram_end {
        return true;
    }
    let Some(option) = hook.packet_view.read_at::<[u8; 8]>(start) else { return false };
    let named = [option[2], option[3], option[4], option[5], option[6], option[7]];
    let genuine = match option[0] {
        ND_OPTION_SOURCE_MAC | ND_OPTION_TARGET_MAC => same_mac(named, mac),
        ND_OPTION_NONCE => true,
        _ => false,
    };
    genuine && option[1] == 1 && start + 8 == header.datagram_end
}

/// The link-local address derived from a MAC (RFC 4291, appendix A).
#[inline(always)]
fn link_local_of_mac(mac: [u8; 6]) -> AddressWords {
    [
        0xfe80_0000_u32.to_be(),
        0,
        u32::from_ne_bytes([mac[0] ^ 2, mac[1], mac[2], 0xff]),
        u32::from_ne_bytes([0xfe, mac[3], mac[4], mac[5]]),
    ]
}

#[inline(always)]
pub(crate) fn is_unspecified(address: AddressWords) -> bool {
    same_address(address, [0; 4])
}

#[inline(always)]
fn is_link_local(address: AddressWords) -> bool {
    u32::from_be(address[0]) >> 22 == 0xfe80 >> 6
}

/// Whether the address is in ff02::/16.
#[inline(always)]
pub(crate) fn is_link_multicast(address: AddressWords) -> bool {
    u32::from_be(address[0]) >> 16 == 0xff02
}
