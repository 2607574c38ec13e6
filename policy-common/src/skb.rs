//! The layout of `struct sk_buff` in the running kernel, for fields that programs cannot access
//! through their context.
//!
//! Since Linux 6.2 the kernel function `bpf_cast_to_kern_ctx` turns a context into a pointer to the
//! `sk_buff`, and its fields can be loaded like any memory. The loader does not link kernel functions,
//! so the programs call the helper [`CONTEXT_CAST_HELPER`], which does not exist, and the agent
//! replaces the calls.

use crate::impl_pod;

/// The number of the helper whose calls the agent replaces by calls of `bpf_cast_to_kern_ctx`.
pub const CONTEXT_CAST_HELPER: u32 = 0x7f00_0001;

/// Offsets in bytes from the start of `struct sk_buff`. The agent reads them from the kernel's BTF
/// and sets the global [`SKB_LAYOUT`](crate::bpf_names::SKB_LAYOUT).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SkbLayout {
    /// `ip_summed`: the byte that contains its two bits.
    pub ip_summed: u32,
    /// Number of bits below `ip_summed` in that byte.
    pub ip_summed_shift: u32,
    /// `csum_start`: 16 bits, relative to `head`.
    pub csum_start: u32,
    /// `csum_offset`: 16 bits, relative to `csum_start`.
    pub csum_offset: u32,
    /// `head`, a pointer.
    pub head: u32,
    /// `data`, a pointer to the first byte of the frame.
    pub data: u32,
    /// 1 if the agent has replaced the calls of [`CONTEXT_CAST_HELPER`], else 0.
    pub has_context_cast: u32,
}

impl_pod!(SkbLayout, 28);
