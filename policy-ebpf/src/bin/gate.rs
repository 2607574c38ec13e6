//! The gate of one slot. It sets the slot and calls the programs shared by all sandboxes. The agent
//! loads it once per slot, with the slot filled in, and attaches it to interfaces.
//!
//! Interface indexes are only unique within a network namespace, so they cannot identify a sandbox.
//! The shared programs are called through a program array, so a single update replaces them for all
//! sandboxes. If the array is empty, the gate drops every packet.
#![no_std]
#![no_main]

use aya_ebpf::{
    EbpfContext as _,
    bindings::{__sk_buff, TC_ACT_SHOT, xdp_action},
    btf_maps::{PerCpuArray, ProgramArray},
    macros::{btf_map, classifier, xdp},
    programs::{TcContext, XdpContext},
};
use policy_common::bpf_names::tail_call_index;

#[btf_map]
static TC_PROGRAMS: ProgramArray<6> = ProgramArray::new();
#[btf_map]
static XDP_PROGRAMS: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static XDP_SLOT: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Set by the agent before loading. Slot 0 is never assigned.
#[unsafe(no_mangle)]
static SLOT: u32 = 0;

/// Handles packets sent by the sandbox.
#[classifier]
pub(crate) fn gate_from(ctx: TcContext) -> i32 {
    call_shared_program(&ctx, tail_call_index::FAST_PATH)
}

/// Handles packets sent to the sandbox.
#[classifier]
pub(crate) fn gate_to(ctx: TcContext) -> i32 {
    call_shared_program(&ctx, tail_call_index::FAST_DELIVERY)
}

/// Handles packets sent by the sandbox before the kernel allocates an `sk_buff`. If anything is
/// missing, the packet passes and the TC gate decides.
#[xdp]
pub(crate) fn gate_xdp(ctx: XdpContext) -> u32 {
    if let Some(slot_of_this_cpu) = XDP_SLOT.get_ptr_mut(0) {
        // SAFETY: the pointer is valid while the program runs, and the element belongs to this CPU:
        // XDP programs do not nest.
        unsafe { *slot_of_this_cpu = gate_slot() };
        // SAFETY: on success the call does not return, and nothing here needs dropping.
        unsafe { XDP_PROGRAMS.tail_call(&ctx, tail_call_index::EARLY_DROP) };
    }
    xdp_action::XDP_PASS
}

#[inline(always)]
fn call_shared_program(ctx: &TcContext, program: u32) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is valid while the program runs, and TC programs may write `cb`.
    unsafe { (*skb).cb[0] = gate_slot() };
    // SAFETY: on success the call does not return, and nothing here needs dropping.
    unsafe { TC_PROGRAMS.tail_call(ctx, program) };
    TC_ACT_SHOT
}

#[inline(always)]
fn gate_slot() -> u32 {
    // SAFETY: a static. The read is volatile because the value is set after compilation.
    unsafe { core::ptr::read_volatile(&raw const SLOT) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
