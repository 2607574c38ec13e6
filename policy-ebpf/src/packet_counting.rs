//! Counts packets. This never affects a verdict: if a counter is missing, the packet is not
//! counted.

use policy_common::{counters::COUNTER_GROUP_SLOTS, reason::KERNEL_REASON_CODES, verdict::Verdict};

use crate::{maps::COUNTERS, packet_context::PacketContext};

/// Counts the packet under its reason.
#[inline(always)]
pub(crate) fn count_packet(hook: &PacketContext, verdict: Verdict) {
    let reason = verdict.reason_code.into();
    count_judged_packet(hook.slot, reason, hook.packet_count, hook.frame_length);
}

/// A global function, so that the verifier checks it once and not for every way to a verdict.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn count_judged_packet(slot: u32, reason_code: u32, packets: u32, bytes: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the caller passes a code")]
    count_frame(slot, reason_code as u8, packets, bytes);
    0
}

/// Counts a frame that represents this many packets and bytes.
#[inline(always)]
pub(crate) fn count_frame(slot: u32, reason_code: u8, packets: u32, bytes: u32) {
    let (group, member) = (slot / COUNTER_GROUP_SLOTS, slot % COUNTER_GROUP_SLOTS);
    let Some(counters) = COUNTERS.get_value_ptr_mut(group, &member) else { return };
    // The compiler may know that the code is in bounds and would leave out the check, but the
    // verifier does not know. Hence the volatile read.
    // SAFETY: a local.
    let reason = usize::from(unsafe { core::ptr::read_volatile(&raw const reason_code) });
    if reason >= KERNEL_REASON_CODES {
        return;
    }
    // SAFETY: the pointer is valid while the program runs, and the element belongs to this CPU. The
    // index is in bounds.
    let counter = unsafe { &mut (*counters)[0].by_reason[reason] };
    counter.packets += u64::from(packets);
    counter.bytes += u64::from(bytes);
}
