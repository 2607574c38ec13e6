//! What `cargo xtask bench` measures the packet path beside. Not part of the product.
//!
//! `BPF_PROG_TEST_RUN` runs one frame many times, which finds every cache warm. So `scatter` gives
//! the frame another destination each time, from a table, before it calls the program that is
//! measured; beside it, `scatter` in front of `empty` tells what that costs by itself.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Destinations that are used in turn.
const DESTINATION_COUNT: u32 = 65_536;
const DESTINATIONS: usize = DESTINATION_COUNT as usize;
/// Where the destination stands in the frame.
const DESTINATION_OFFSET_V4: usize = 14 + 16;
const DESTINATION_OFFSET_V6: usize = 14 + 24;

#[btf_map]
static DESTINATIONS_V4: Array<[u8; 4], DESTINATIONS> = Array::new();
#[btf_map]
static DESTINATIONS_V6: Array<[u8; 16], DESTINATIONS> = Array::new();
#[btf_map]
static NEXT: PerCpuArray<u32, 1> = PerCpuArray::new();
/// The program that is measured.
#[btf_map]
static MEASURED: ProgramArray<1> = ProgramArray::new();

/// Does nothing.
#[classifier]
pub(crate) fn empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Gives an IPv4 frame its next destination and calls what is measured.
#[classifier]
pub(crate) fn scatter_v4(ctx: TcContext) -> i32 {
    let Some(destination) = next_destination().and_then(|next| DESTINATIONS_V4.get(next)) else {
        return TC_ACT_SHOT;
    };
    run_measured(&ctx, DESTINATION_OFFSET_V4, *destination)
}

/// The same for IPv6.
#[classifier]
pub(crate) fn scatter_v6(ctx: TcContext) -> i32 {
    let Some(destination) = next_destination().and_then(|next| DESTINATIONS_V6.get(next)) else {
        return TC_ACT_SHOT;
    };
    run_measured(&ctx, DESTINATION_OFFSET_V6, *destination)
}

/// The index of the next destination.
#[inline(always)]
fn next_destination() -> Option<u32> {
    let next = NEXT.get_ptr_mut(0)?;
    // SAFETY: valid while the program runs, and this CPU's alone.
    unsafe {
        *next = (*next).wrapping_add(1);
        Some(*next % DESTINATION_COUNT)
    }
}

#[inline(always)]
fn run_measured<const N: usize>(ctx: &TcContext, offset: usize, destination: [u8; N]) -> i32 {
    let field = ctx.data() + offset;
    if field + N > ctx.data_end() {
        return TC_ACT_SHOT;
    }
    // SAFETY: the bounds were checked above; bytes need no alignment.
    unsafe { *(field as *mut [u8; N]) = destination };
    // SAFETY: on success the call does not come back; nothing here needs dropping.
    unsafe { MEASURED.tail_call(ctx, 0) };
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program that can get here.
    loop {}
}
