//! Line 2: ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861) that a sandbox needs, about its
//! own addresses only, and multicast listener reports (RFC 3810).
//!
//! Discovery has to stay on the link and carries nothing but what it is for: a solicitation that the
//! host would route onwards could take data out, in its destination as well as behind it.

use aya_ebpf::{bindings::bpf_fib_lookup, helpers::bpf_fib_lookup as bpf_fib_lookup_helper};
use policy_common::{reason::Reason, sandbox::Sandbox};

use crate::{
    context::Hook,
    header::{Address, ETHERNET, Header, Part, words},
    packet::Packet,
    spoof::{owns_v4, owns_v6, same, same_mac},
};

/// Where ICMPv6 begins without extension headers, which discovery has none of (RFC 6980).
const PLAIN: usize = ETHERNET + 40;
/// Listener reports carry the router alert in a hop-by-hop header (RFC 3810, 5).
const WITH_ALERT: usize = PLAIN + 8;
/// A frame that Ethernet filled up to its least length.
const FILLED: u32 = 60;

/// Hardware type Ethernet, protocol type IPv4, lengths 6 and 4.
const ARP_FORM: [u8; 6] = [0, 1, 8, 0, 6, 4];

const LISTENER_QUERY: u8 = 130;
const LISTENER_REPORT: u8 = 131;
const LISTENER_DONE: u8 = 132;
const ROUTER_SOLICITATION: u8 = 133;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const LISTENER_REPORT_V2: u8 = 143;

const SOURCE_MAC_OPTION: u8 = 1;
const TARGET_MAC_OPTION: u8 = 2;
/// RFC 3971; Linux sends it when it looks for duplicates of its address (RFC 7527).
const NONCE_OPTION: u8 = 14;

/// ARP from the sandbox's MAC about the sandbox's address. An address that is asked for before it
/// is taken (sender 0.0.0.0, RFC 5227) has to be the sandbox's, too.
#[inline(never)]
pub fn arp(hook: &Hook, sandbox: &Sandbox, mac: &[u8; 6]) -> Reason {
    let Some(form) = hook.packet.read::<[u8; 6]>(ETHERNET) else { return Reason::Malformed };
    let Some(operation) = hook.packet.read::<[u8; 2]>(ETHERNET + 6) else {
        return Reason::Malformed;
    };
    let Some(body) = hook.packet.read::<[u8; 20]>(ETHERNET + 8) else { return Reason::Malformed };
    let same_form = form[0] == ARP_FORM[0]
        && form[1] == ARP_FORM[1]
        && form[2] == ARP_FORM[2]
        && form[3] == ARP_FORM[3]
        && form[4] == ARP_FORM[4]
        && form[5] == ARP_FORM[5];
    let sender_mac = [body[0], body[1], body[2], body[3], body[4], body[5]];
    let sender = u32::from_ne_bytes([body[6], body[7], body[8], body[9]]);
    let target = u32::from_ne_bytes([body[16], body[17], body[18], body[19]]);
    let claimed = if sender == 0 { target } else { sender };
    // A request or a reply, and nothing behind it.
    let plain = operation[0] == 0 && matches!(operation[1], 1 | 2) && hook.length <= FILLED;
    if same_form && plain && same_mac(sender_mac, *mac) && owns_v4(sandbox, claimed) {
        return Reason::Neighbor;
    }
    Reason::NeighborSpoof
}

/// Whether an ICMPv6 packet is neighbour discovery or multicast listener discovery. A later
/// fragment has no type.
#[inline(always)]
pub fn is_discovery(packet: &Packet, header: &Header) -> bool {
    if header.part == Part::Later || header.transport + 8 > header.end {
        return false;
    }
    let Some(start) = packet.read::<[u8; 8]>(header.transport) else { return false };
    matches!(start[0], LISTENER_QUERY..=REDIRECT | LISTENER_REPORT_V2)
}

/// Neighbour discovery and listener reports.
#[inline(never)]
pub fn discovery(hook: &Hook, header: &Header, sandbox: &Sandbox, mac: &[u8; 6]) -> Reason {
    let mac = *mac;
    let Some(icmp) = hook.packet.read::<[u8; 8]>(header.transport) else {
        return Reason::Malformed;
    };
    let own = Own { sandbox, link_local: link_local(mac) };
    let genuine = match icmp[0] {
        LISTENER_REPORT | LISTENER_DONE | LISTENER_REPORT_V2 => {
            header.hops == 1 && is_link_multicast(header.destination) && is_report(header, icmp)
        }
        ROUTER_SOLICITATION => {
            on_link(hook, header, icmp, &own)
                && is_link_multicast(header.destination)
                && option_is_genuine(hook, header, 8, mac)
        }
        NEIGHBOR_SOLICITATION => {
            on_link(hook, header, icmp, &own) && neighbor(hook, header, &own, mac, false)
        }
        NEIGHBOR_ADVERTISEMENT => {
            on_link(hook, header, icmp, &own) && neighbor(hook, header, &own, mac, true)
        }
        _ => false,
    };
    let from_own = is_unspecified(header.source) || own.has(header.source);
    if genuine && from_own && header.part == Part::Whole {
        return Reason::Neighbor;
    }
    Reason::NeighborSpoof
}

/// The addresses of a sandbox, its link-local one included.
struct Own<'a> {
    sandbox: &'a Sandbox,
    link_local: Address,
}

impl Own<'_> {
    #[inline(always)]
    fn has(&self, address: Address) -> bool {
        same(address, self.link_local) || owns_v6(self.sandbox, address)
    }

    /// Whether the address lies in the /64 of one of the sandbox's.
    #[inline(always)]
    fn is_near(&self, address: Address) -> bool {
        let near = |i: usize| {
            let own = &self.sandbox.v6[i];
            let high = u32::from_ne_bytes([own[0], own[1], own[2], own[3]]);
            let low = u32::from_ne_bytes([own[4], own[5], own[6], own[7]]);
            high == address[0] && low == address[1] && (high | low) != 0
        };
        near(0) || near(1) || near(2) || near(3)
    }
}

/// A listener report has room for its groups and for nothing else: one (RFC 2710), or as many as
/// it says, without sources (RFC 3810, 5.2).
#[inline(always)]
fn is_report(header: &Header, icmp: &[u8; 8]) -> bool {
    let length = header.end - header.transport;
    let fits = match icmp[0] {
        LISTENER_REPORT_V2 => length == 8 + 20 * usize::from(icmp[7]) && icmp[6] == 0,
        _ => length == 24,
    };
    fits && icmp[1] == 0 && (header.transport == PLAIN || header.transport == WITH_ALERT)
}

/// RFC 4861: hop limit 255, code 0, reserved bits zero; and a destination that the host will not
/// route onwards.
#[inline(always)]
fn on_link(hook: &Hook, header: &Header, icmp: &[u8; 8], own: &Own<'_>) -> bool {
    let to = header.destination;
    let flags = if icmp[0] == NEIGHBOR_ADVERTISEMENT { 0xe0 } else { 0 };
    let reserved = (icmp[4] & !flags) | icmp[5] | icmp[6] | icmp[7];
    header.transport == PLAIN
        && header.hops == 255
        && icmp[1] | reserved == 0
        && (is_link_multicast(to)
            || is_link_local(to)
            || own.is_near(to) && !is_routed(hook, header))
}

/// Whether the host would forward a packet to this destination: then it is not the host's own.
#[inline(never)] // the question is long, and callers have little room on the stack
fn is_routed(hook: &Hook, header: &Header) -> bool {
    const AF_INET6: u8 = 10;
    // SAFETY: integers and byte arrays, for which zero is valid.
    let mut question: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    question.family = AF_INET6;
    question.ifindex = hook.interface;
    question.__bindgen_anon_3.ipv6_src = header.source;
    question.__bindgen_anon_4.ipv6_dst = header.destination;
    #[expect(clippy::cast_possible_wrap, reason = "64 bytes")]
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: the context is valid while the program runs; the helper reads and writes `question`.
    let answer = unsafe { bpf_fib_lookup_helper(hook.context, &raw mut question, size, 0) };
    // 1 to 5: a route that refuses, one to the host itself or none, or no forwarding at all.
    !matches!(answer, 1..=5)
}

/// A solicitation may ask for any address, unless it has no source yet; an advertisement is about
/// an own one.
#[inline(always)]
fn neighbor(hook: &Hook, header: &Header, own: &Own<'_>, mac: [u8; 6], advertises: bool) -> bool {
    let Some(target) = hook.packet.read::<[u8; 16]>(header.transport + 8) else { return false };
    let about_own = own.has(words(*target));
    let may_be_foreign = !advertises && !is_unspecified(header.source);
    header.transport + 24 <= header.end
        && (about_own || may_be_foreign)
        && option_is_genuine(hook, header, 24, mac)
}

/// At most one option follows, and if it names a MAC, it is the sandbox's.
#[inline(always)]
fn option_is_genuine(hook: &Hook, header: &Header, offset: usize, mac: [u8; 6]) -> bool {
    let start = header.transport + offset;
    if start == header.end {
        return true;
    }
    let Some(option) = hook.packet.read::<[u8; 8]>(start) else { return false };
    let named = [option[2], option[3], option[4], option[5], option[6], option[7]];
    let genuine = match option[0] {
        SOURCE_MAC_OPTION | TARGET_MAC_OPTION => same_mac(named, mac),
        NONCE_OPTION => true,
        _ => false,
    };
    genuine && option[1] == 1 && start + 8 == header.end
}

/// The link-local address that follows from a MAC (RFC 4291, appendix A).
#[inline(always)]
fn link_local(mac: [u8; 6]) -> Address {
    [
        0xfe80_0000_u32.to_be(),
        0,
        u32::from_ne_bytes([mac[0] ^ 2, mac[1], mac[2], 0xff]),
        u32::from_ne_bytes([0xfe, mac[3], mac[4], mac[5]]),
    ]
}

#[inline(always)]
fn is_unspecified(address: Address) -> bool {
    same(address, [0; 4])
}

#[inline(always)]
fn is_link_local(address: Address) -> bool {
    u32::from_be(address[0]) >> 22 == 0xfe80 >> 6
}

/// ff02::/16.
#[inline(always)]
fn is_link_multicast(address: Address) -> bool {
    u32::from_be(address[0]) >> 16 == 0xff02
}
