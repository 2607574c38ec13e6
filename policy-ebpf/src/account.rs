//! Counting. It never changes a verdict: where a counter is missing, nothing is counted.

use policy_common::{policy::Verdict, reason::REASONS};

use crate::{context::Hook, maps::COUNTERS};

/// Counts the packet under its reason.
#[inline(always)]
pub fn count(hook: &Hook, verdict: Verdict) {
    let Some(counters) = COUNTERS.get_ptr_mut(hook.slot) else { return };
    let reason = usize::from(verdict.reason);
    if reason >= REASONS {
        return;
    }
    // SAFETY: the pointer is valid while the program runs, and this CPU's alone; the index was
    // checked.
    let counter = unsafe { &mut (*counters).by_reason[reason] };
    counter.packets += u64::from(hook.packets);
    counter.bytes += u64::from(hook.length);
}
