//! Line 1: a sandbox speaks from its own MAC and IP addresses only.

use policy_common::{
    endpoint::{ENDPOINT_MAC_KNOWN, SandboxEndpoint},
    reason::Reason,
};

use crate::{
    header::{AddressWords, IpHeader, address_from_bytes},
    packet_context::PacketContext,
};

/// The source MAC of the frame, which is the sandbox's where that is known.
#[inline(always)]
pub fn check_source_mac(
    hook: &PacketContext,
    sandbox: &SandboxEndpoint,
) -> Result<[u8; 6], Reason> {
    let source = *hook.packet_view.read_at::<[u8; 6]>(6).ok_or(Reason::Malformed)?;
    if sandbox.flags & ENDPOINT_MAC_KNOWN != 0 && !same_mac(source, sandbox.mac) {
        return Err(Reason::SpoofedMac);
    }
    Ok(source)
}

/// The source address is one of the sandbox's.
#[inline(always)]
pub fn check_source_address(header: &IpHeader, sandbox: &SandboxEndpoint) -> Result<(), Reason> {
    let own = if header.is_v6 {
        owns_ipv6(sandbox, header.source)
    } else {
        owns_ipv4(sandbox, header.source[3])
    };
    if own { Ok(()) } else { Err(Reason::SpoofedIp) }
}

/// Whether an IPv4 address, in network byte order, is one of the sandbox's.
#[inline(always)]
pub fn owns_ipv4(sandbox: &SandboxEndpoint, address: u32) -> bool {
    let own = &sandbox.ipv4_addresses;
    let is = |i: usize| u32::from_ne_bytes(own[i]) == address;
    address != 0 && (is(0) || is(1) || is(2) || is(3))
}

/// Whether an IPv6 address is one of the sandbox's.
#[inline(always)]
pub fn owns_ipv6(sandbox: &SandboxEndpoint, address: AddressWords) -> bool {
    let own = &sandbox.ipv6_addresses;
    let is = |i: usize| same_address(address_from_bytes(own[i]), address);
    !same_address(address, [0; 4]) && (is(0) || is(1) || is(2) || is(3))
}

/// Compares word by word: the array's own comparison would be a call to `memcmp`.
#[inline(always)]
pub fn same_address(a: AddressWords, b: AddressWords) -> bool {
    a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

/// Compares MAC addresses without a call to `memcmp`.
#[inline(always)]
pub fn same_mac(a: [u8; 6], b: [u8; 6]) -> bool {
    let low = |m: [u8; 6]| u32::from_ne_bytes([m[0], m[1], m[2], m[3]]);
    let high = |m: [u8; 6]| u16::from_ne_bytes([m[4], m[5]]);
    low(a) == low(b) && high(a) == high(b)
}
