//! Where this kernel keeps the fields of its `struct sk_buff` that programs are not shown.

use crate::impl_pod;

/// Offsets in bytes from the start of `struct sk_buff`. The agent takes them from the kernel's BTF
/// and fills in the global [`SKB_LAYOUT`](crate::bpf_names::SKB_LAYOUT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SkbLayout {
    /// `ip_summed`: the byte that its two bits are in.
    pub ip_summed: u32,
    /// How many bits lie below those two.
    pub ip_summed_shift: u32,
    /// `csum_start`, 16 bits, from `head`.
    pub csum_start: u32,
    /// `csum_offset`, 16 bits, from `csum_start`.
    pub csum_offset: u32,
    /// `head`, a pointer.
    pub head: u32,
    /// `data`, a pointer: the frame's first byte.
    pub data: u32,
}

impl_pod!(SkbLayout, 24);
