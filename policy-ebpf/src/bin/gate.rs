//! The gate of one sandbox interface: it knows its slot and calls the programs that all sandboxes
//! share. The agent loads it anew for every interface, with the slot filled in.
//!
//! Interface indexes repeat between network namespaces, so they cannot name a sandbox; and with
//! the programs behind a table, replacing them is one update for all sandboxes at once. Where the
//! table is empty, the gate is shut.
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
static TC_PROGRAMS: ProgramArray<4> = ProgramArray::new();
#[btf_map]
static XDP_PROGRAMS: ProgramArray<1> = ProgramArray::new();
#[btf_map]
static XDP_SLOT: PerCpuArray<u32, 1> = PerCpuArray::new();

/// Filled in by the agent. Slot 0 belongs to nobody.
#[unsafe(no_mangle)]
static SLOT: u32 = 0;

/// What the sandbox sends.
#[classifier]
pub(crate) fn gate_from(ctx: TcContext) -> i32 {
    call_shared_program(&ctx, tail_call_index::FROM_SANDBOX)
}

/// What the sandbox receives.
#[classifier]
pub(crate) fn gate_to(ctx: TcContext) -> i32 {
    call_shared_program(&ctx, tail_call_index::TO_SANDBOX)
}

/// What the sandbox sends, before the kernel builds a packet of it. Where something is missing,
/// the gate at TC decides.
#[xdp]
pub(crate) fn gate_xdp(ctx: XdpContext) -> u32 {
    if let Some(slot_of_this_cpu) = XDP_SLOT.get_ptr_mut(0) {
        // SAFETY: valid while the program runs, and this CPU's alone: XDP programs do not nest.
        unsafe { *slot_of_this_cpu = gate_slot() };
        // SAFETY: on success the call does not come back; nothing here needs dropping.
        unsafe { XDP_PROGRAMS.tail_call(&ctx, tail_call_index::EARLY_DROP) };
    }
    xdp_action::XDP_PASS
}

#[inline(always)]
fn call_shared_program(ctx: &TcContext, program: u32) -> i32 {
    let skb: *mut __sk_buff = ctx.as_ptr().cast();
    // SAFETY: the context is valid while the program runs; TC programs may write `cb`.
    unsafe { (*skb).cb[0] = gate_slot() };
    // SAFETY: on success the call does not come back; nothing here needs dropping.
    unsafe { TC_PROGRAMS.tail_call(ctx, program) };
    TC_ACT_SHOT
}

#[inline(always)]
fn gate_slot() -> u32 {
    // SAFETY: a static; volatile, since its value is filled in after compilation.
    unsafe { core::ptr::read_volatile(&raw const SLOT) }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can get here.
    loop {}
}
