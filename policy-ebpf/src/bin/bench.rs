//! Programs for `cargo xtask bench`. Not part of the product.
//!
//! `BPF_PROG_TEST_RUN` runs the same frame many times, so every cache is warm. `scatter` therefore
//! replaces the destination with the next one from a table and then calls the measured program. The
//! cost of `scatter` itself is measured by letting it call `empty`.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    btf_maps::{Array, PerCpuArray, ProgramArray},
    macros::{btf_map, classifier},
    programs::TcContext,
};

/// Number of destinations, which are used in rotation.
const DESTINATION_COUNT: u32 = 65_536;
const DESTINATIONS: usize = DESTINATION_COUNT as usize;
/// Offset of the destination address in the frame.
const DESTINATION_OFFSET_V4: usize = 14 + 16;
const DESTINATION_OFFSET_V6: usize = 14 + 24;

#[btf_map]
static DESTINATIONS_V4: Array<[u32; 1], DESTINATIONS> = Array::new();
#[btf_map]
static DESTINATIONS_V6: Array<[u32; 4], DESTINATIONS> = Array::new();
#[btf_map]
static NEXT: PerCpuArray<u32, 1> = PerCpuArray::new();
/// The program that is measured.
#[btf_map]
static MEASURED: ProgramArray<1> = ProgramArray::new();

/// Does nothing. The baseline of the measurement.
#[classifier]
pub(crate) fn empty(_: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

/// Sets the next destination of an IPv4 frame and calls the measured program.
#[classifier]
pub(crate) fn scatter_v4(ctx: TcContext) -> i32 {
    let Some(destination) = next_destination().and_then(|next| DESTINATIONS_V4.get(next)) else {
        return TC_ACT_SHOT;
    };
    run_measured(&ctx, DESTINATION_OFFSET_V4, *destination)
}

/// Sets the next destination of an IPv6 frame and calls the measured program.
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
    // SAFETY: the pointer is valid while the program runs, and the element belongs to this CPU.
    unsafe {
        *next = (*next).wrapping_add(1);
        Some(*next % DESTINATION_COUNT)
    }
}

/// Writes whole words: the processor stalls where the measured program reads what single bytes were
/// written to.
#[inline(always)]
fn run_measured<const N: usize>(ctx: &TcContext, offset: usize, destination: [u32; N]) -> i32 {
    let field = ctx.data() + offset;
    if field + N * size_of::<u32>() > ctx.data_end() {
        return TC_ACT_SHOT;
    }
    let mut index = 0;
    while index < N {
        let word = (field + index * size_of::<u32>()) as *mut u32;
        // SAFETY: the bounds were checked above. Alignment: as in `SimpleFrame::read`.
        unsafe { word.write_volatile(destination[index]) };
        index += 1;
    }
    // SAFETY: on success the call does not return, and nothing here needs dropping.
    unsafe { MEASURED.tail_call(ctx, 0) };
    TC_ACT_SHOT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can reach this.
    loop {}
}
