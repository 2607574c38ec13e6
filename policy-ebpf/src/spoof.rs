//! Line 1: a sandbox speaks from its own MAC and IP addresses only.

use policy_common::{
    reason::Reason,
    sandbox::{MAC_KNOWN, Sandbox},
};

use crate::{
    context::Hook,
    header::{Address, Header, words},
};

/// The source MAC of the frame, which is the sandbox's where that is known.
#[inline(always)]
pub fn mac(hook: &Hook, sandbox: &Sandbox) -> Result<[u8; 6], Reason> {
    let source = *hook.packet.read::<[u8; 6]>(6).ok_or(Reason::Malformed)?;
    if sandbox.flags & MAC_KNOWN != 0 && !same_mac(source, sandbox.mac) {
        return Err(Reason::SpoofedMac);
    }
    Ok(source)
}

/// The source address is one of the sandbox's.
#[inline(always)]
pub fn address(header: &Header, sandbox: &Sandbox) -> Result<(), Reason> {
    let own = if header.v6 {
        owns_v6(sandbox, header.source)
    } else {
        owns_v4(sandbox, header.source[3])
    };
    if own { Ok(()) } else { Err(Reason::SpoofedIp) }
}

/// Whether an IPv4 address, in network byte order, is one of the sandbox's.
#[inline(always)]
pub fn owns_v4(sandbox: &Sandbox, address: u32) -> bool {
    let own = &sandbox.v4;
    let is = |i: usize| u32::from_ne_bytes(own[i]) == address;
    address != 0 && (is(0) || is(1) || is(2) || is(3))
}

/// Whether an IPv6 address is one of the sandbox's.
#[inline(always)]
pub fn owns_v6(sandbox: &Sandbox, address: Address) -> bool {
    let own = &sandbox.v6;
    let is = |i: usize| same(words(own[i]), address);
    !same(address, [0; 4]) && (is(0) || is(1) || is(2) || is(3))
}

/// Compares word by word: the array's own comparison would be a call to `memcmp`.
#[inline(always)]
pub fn same(a: Address, b: Address) -> bool {
    a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

/// Compares MAC addresses without a call to `memcmp`.
#[inline(always)]
pub fn same_mac(a: [u8; 6], b: [u8; 6]) -> bool {
    let low = |m: [u8; 6]| u32::from_ne_bytes([m[0], m[1], m[2], m[3]]);
    let high = |m: [u8; 6]| u16::from_ne_bytes([m[4], m[5]]);
    low(a) == low(b) && high(a) == high(b)
}
