#![no_std]
//! The ABI between the kernel programs (`policy-ebpf`) and the agent: keys and values of the maps,
//! reason codes, the event record, names of maps and programs.
//!
//! Plain integers and byte arrays only, padding named and zeroed, sizes asserted. Addresses are
//! in network byte order as 16 bytes, IPv4 as IPv4-mapped IPv6 (`::ffff:a.b.c.d`); ports and all
//! other integers are in host byte order unless a field says otherwise.

pub mod bpf_names;
pub mod counters;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod poptrie;
pub mod rate_limit;
pub mod reason;
pub mod redirect;
pub mod skb;
pub mod verdict;

/// Shape of everything in this crate. Pinned maps are adopted only by a program with the same
/// number: change it with every change of a key, a value or a meaning.
pub const ABI_VERSION: u32 = 3;

/// Implements `aya::Pod` for a map type that has no implicit padding, and asserts its size.
macro_rules! impl_pod {
    ($type:ty, $size:literal) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        // SAFETY: `repr(C)`, made of integers and byte arrays without implicit padding (the size
        // is asserted above to be the sum of the fields), so every byte is initialised and every
        // bit pattern is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use impl_pod;

/// The 16-byte form of an IPv4 address: IPv4-mapped IPv6.
#[inline(always)]
#[must_use]
pub const fn ipv4_mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}
