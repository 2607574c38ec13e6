//! Fields of the kernel's `struct sk_buff` that `__sk_buff` lacks. See `policy_common::skb`.

use core::ffi::c_void;

use aya_ebpf::{EbpfContext as _, helpers::bpf_probe_read_kernel, programs::TcContext};
use policy_common::skb::{CONTEXT_CAST_HELPER, SkbLayout};

/// `ip_summed` has two bits.
const IP_SUMMED_MASK: u8 = 3;

/// Set by the agent before loading.
#[unsafe(no_mangle)]
static SKB_LAYOUT: SkbLayout = SkbLayout {
    ip_summed: 0,
    ip_summed_shift: 0,
    csum_start: 0,
    csum_offset: 0,
    head: 0,
    data: 0,
    has_context_cast: 0,
};

/// The packet as the kernel knows it.
pub(crate) struct KernelSkb {
    /// On kernels with typed pointers one of them, else the context. Its address is the same, but
    /// the verifier allows loads through the first only.
    skb: *const u8,
}

impl KernelSkb {
    /// The packet of this context.
    #[inline(always)]
    pub(crate) fn new(ctx: &TcContext) -> Self {
        let context = ctx.as_ptr();
        if !has_context_cast() {
            return Self { skb: context.cast() };
        }
        // SAFETY: the agent replaces calls of this helper by calls of a kernel function that takes
        // and returns a pointer. Programs are refused if it did not.
        let skb = unsafe {
            core::mem::transmute::<usize, extern "C" fn(*mut c_void) -> *const u8>(
                CONTEXT_CAST_HELPER as usize,
            )(context)
        };
        Self { skb }
    }

    /// The state of the packet's checksum: `CHECKSUM_*` in the kernel's headers.
    #[inline(always)]
    pub(crate) fn read_ip_summed(&self) -> Option<u8> {
        let bits: u8 = self.read(layout_field(&raw const SKB_LAYOUT.ip_summed))?;
        Some(bits >> layout_field(&raw const SKB_LAYOUT.ip_summed_shift) & IP_SUMMED_MASK)
    }

    /// Where the checksum's data starts, relative to `head`.
    #[inline(always)]
    pub(crate) fn read_csum_start(&self) -> Option<u16> {
        self.read(layout_field(&raw const SKB_LAYOUT.csum_start))
    }

    /// Where the checksum is written, relative to its start.
    #[inline(always)]
    pub(crate) fn read_csum_offset(&self) -> Option<u16> {
        self.read(layout_field(&raw const SKB_LAYOUT.csum_offset))
    }

    /// The address of the packet's buffer.
    #[inline(always)]
    pub(crate) fn read_head(&self) -> Option<u64> {
        self.read(layout_field(&raw const SKB_LAYOUT.head))
    }

    /// The address of the frame.
    #[inline(always)]
    pub(crate) fn read_data(&self) -> Option<u64> {
        self.read(layout_field(&raw const SKB_LAYOUT.data))
    }

    #[inline(always)]
    fn read<T: Copy>(&self, offset: u32) -> Option<T> {
        let field = self.skb.wrapping_add(offset as usize).cast::<T>();
        if has_context_cast() {
            // SAFETY: the verifier checks that this is a field.
            return Some(unsafe { field.read_volatile() });
        }
        // SAFETY: the helper accepts any address and fails if it cannot be read.
        unsafe { bpf_probe_read_kernel(field) }.ok()
    }
}

/// The verifier knows the value and removes the other branch.
#[inline(always)]
fn has_context_cast() -> bool {
    layout_field(&raw const SKB_LAYOUT.has_context_cast) != 0
}

/// A field of `SKB_LAYOUT`.
#[inline(always)]
fn layout_field(field: *const u32) -> u32 {
    // SAFETY: the global is initialised and never written while programs run. The read is volatile
    // because the value is set after compilation.
    unsafe { core::ptr::read_volatile(field) }
}
