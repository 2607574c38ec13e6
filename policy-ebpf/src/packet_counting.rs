//! Counts packets. This never affects a verdict: if a counter is missing, the packet is not
//! counted.

use policy_common::{reason::KERNEL_REASON_CODES, verdict::Verdict};

use crate::{maps::COUNTERS, packet_context::PacketContext};

/// Counts the packet under its reason.
#[inline(always)]
pub(crate) fn count_packet(hook: &PacketContext, verdict: Verdict) {
    count_frame(hook.slot, verdict.reason_code, hook.packet_count, hook.frame_length);
}

/// Counts a frame that represents this many packets and bytes.
#[inline(always)]
pub(crate) fn count_frame(slot: u32, reason_code: u8, packets: u32, bytes: u32) {
    let Some(counters) = COUNTERS.get_ptr_mut(slot) else { return };
    let reason = usize::from(reason_code);
    if reason >= KERNEL_REASON_CODES {
        return;
    }
    // SAFETY: the pointer is valid while the program runs, and the element belongs to this CPU. The
    // index is in bounds.
    let counter = unsafe { &mut (*counters).by_reason[reason] };
    counter.packets += u64::from(packets);
    counter.bytes += u64::from(bytes);
}
