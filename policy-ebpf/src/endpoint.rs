//! The sandbox that an interface belongs to, and its addresses.

use policy_common::{
    endpoint::{ENDPOINT_ACTIVE, SandboxEndpoint},
    reason::Reason,
};

use crate::{ip_header::AddressWords, maps::SANDBOXES, packet_context::PacketContext};

/// The sandbox that this interface belongs to.
#[inline(always)]
pub(crate) fn active_endpoint(hook: &PacketContext) -> Result<&'static SandboxEndpoint, Reason> {
    match SANDBOXES.get(hook.slot) {
        Some(sandbox) if sandbox.flags & ENDPOINT_ACTIVE != 0 => Ok(sandbox),
        _ => Err(Reason::NoPolicy),
    }
}

/// Whether an IPv4 address (in network byte order) belongs to the sandbox.
#[inline(always)]
pub(crate) fn owns_ipv4(sandbox: &SandboxEndpoint, address: u32) -> bool {
    let own = &sandbox.ipv4_addresses;
    let is = |i: usize| own[i] == address;
    address != 0 && (is(0) || is(1) || is(2) || is(3))
}

/// Whether an IPv6 address belongs to the sandbox.
#[inline(always)]
pub(crate) fn owns_ipv6(sandbox: &SandboxEndpoint, address: AddressWords) -> bool {
    let own = &sandbox.ipv6_addresses;
    let is = |i: usize| same_address(own[i], address);
    !same_address(address, [0; 4]) && (is(0) || is(1) || is(2) || is(3))
}

/// Compares word by word, because comparing arrays would call `memcmp`.
#[inline(always)]
pub(crate) fn same_address(a: AddressWords, b: AddressWords) -> bool {
    a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

/// Compares MAC addresses without calling `memcmp`.
#[inline(always)]
pub(crate) fn same_mac(a: [u8; 6], b: [u8; 6]) -> bool {
    let low = |m: [u8; 6]| u32::from_ne_bytes([m[0], m[1], m[2], m[3]]);
    let high = |m: [u8; 6]| u16::from_ne_bytes([m[4], m[5]]);
    low(a) == low(b) && high(a) == high(b)
}

/// Whether packets from the sandbox may be replies to an inbound TCP connection.
#[inline(always)]
pub(crate) fn has_inbound_tcp(sandbox: &SandboxEndpoint) -> bool {
    // SAFETY: the field is valid. The read is volatile, because `note_inbound_tcp` writes it.
    unsafe { core::ptr::read_volatile(&raw const sandbox.has_no_inbound_tcp) == 0 }
}

/// The same for exchanges of datagrams that the host began.
#[inline(always)]
pub(crate) fn has_inbound_datagrams(sandbox: &SandboxEndpoint) -> bool {
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(&raw const sandbox.has_no_inbound_datagrams) == 0 }
}

/// Notes that the sandbox is about to get an inbound TCP connection.
#[inline(always)]
pub(crate) fn note_inbound_tcp(slot: u32) {
    if let Some(sandbox) = SANDBOXES.get_ptr_mut(slot) {
        // SAFETY: the kernel frees no element of an array.
        clear_word(unsafe { &raw mut (*sandbox).has_no_inbound_tcp });
    }
}

/// The same for an exchange of datagrams.
#[inline(always)]
pub(crate) fn note_inbound_datagram(slot: u32) {
    if let Some(sandbox) = SANDBOXES.get_ptr_mut(slot) {
        // SAFETY: as above.
        clear_word(unsafe { &raw mut (*sandbox).has_no_inbound_datagrams });
    }
}

/// Writes only once, so that the cache line stays shared.
#[inline(always)]
fn clear_word(word: *mut u32) {
    // SAFETY: the word belongs to an element of an array.
    unsafe {
        if word.read_volatile() != 0 {
            word.write_volatile(0);
        }
    }
}
