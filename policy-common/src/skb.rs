//! Where this kernel keeps the fields of its `struct sk_buff` that programs are not shown.

use crate::map_type;

/// Offsets in bytes from the start of `struct sk_buff`. The agent takes them from the kernel's BTF
/// and fills in the global [`SKB_LAYOUT`](crate::name::SKB_LAYOUT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SkbLayout {
    /// `ip_summed`: the byte that its two bits are in.
    pub summed: u32,
    /// How many bits lie below those two.
    pub summed_shift: u32,
    /// `csum_start`, 16 bits, from `head`.
    pub start: u32,
    /// `csum_offset`, 16 bits, from `csum_start`.
    pub offset: u32,
    /// `head`, a pointer.
    pub head: u32,
    /// `data`, a pointer: the frame's first byte.
    pub data: u32,
}

map_type!(SkbLayout, 24);
