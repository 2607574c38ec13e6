//! Marks packets that may pass, for the guard behind TC (`policy_common::guard`).

use aya_ebpf::programs::TcContext;

use crate::packet_context::skb_pointer;

/// The bit of the mark. Set by the agent before loading.
#[unsafe(no_mangle)]
static GUARD_MARK: u32 = 0;

/// Sets the guard's bit in the packet's mark, and keeps the others.
#[inline(always)]
pub(crate) fn set_guard_mark(ctx: &TcContext) {
    // SAFETY: the global is initialised and never written while programs run. The read is volatile
    // because the value is set after compilation.
    let bit = unsafe { core::ptr::read_volatile(&raw const GUARD_MARK) };
    // SAFETY: the context is valid while the program runs, and TC programs may write the mark.
    unsafe { (*skb_pointer(ctx)).mark |= bit };
}
