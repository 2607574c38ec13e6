#![no_std]
//! The ABI between the kernel programs (`policy-ebpf`) and the agent: keys and values of maps,
//! reason codes, the event record, and the names of maps and programs.
//!
//! All types consist of plain integers and byte arrays, with explicit zeroed padding and asserted
//! sizes. Addresses are 16 bytes in network byte order, with IPv4 addresses as IPv4-mapped IPv6
//! addresses (`::ffff:a.b.c.d`). Ports and all other integers are in host byte order unless
//! documented otherwise.

pub mod bpf_names;
pub mod counters;
pub mod endpoint;
pub mod event;
pub mod flow;
pub mod flow_fingerprint;
pub mod guard;
pub mod policy_table;
pub mod range_node;
pub mod rate_limit;
pub mod reason;
pub mod redirect;
pub mod skb;
pub mod verdict;

/// The version of all layouts in this crate. Only a program with the same version adopts pinned
/// maps. Increment it with every change of a key, a value or its meaning.
pub const ABI_VERSION: u32 = 6;

/// Implements `aya::Pod` for a map type that has no implicit padding, and asserts its size.
macro_rules! impl_pod {
    ($type:ty, $size:literal) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $size);
        // SAFETY: `repr(C)`, consisting of integers and byte arrays without implicit padding (the
        // size is asserted above to be the sum of the fields), so every byte is initialised and
        // every bit pattern is valid.
        #[cfg(feature = "user")]
        unsafe impl aya::Pod for $type {}
    };
}
pub(crate) use impl_pod;

/// Converts an IPv4 address to an IPv4-mapped IPv6 address.
#[inline(always)]
#[must_use]
pub const fn ipv4_mapped(v4: [u8; 4]) -> [u8; 16] {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, v4[0], v4[1], v4[2], v4[3]]
}
