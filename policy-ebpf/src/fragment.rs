//! Line 1 for fragments: a later one passes when its first was let through.
//!
//! The first fragment is judged like a whole datagram and has to hold the transport header. Later
//! ones carry no ports; they are known by source, destination, protocol and identification.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use policy_common::{flow::FragmentKey, reason::Reason};

use crate::{
    context::Hook,
    decide::owner,
    header::{Header, bytes},
    maps::FRAGMENTS,
    transport,
};

/// How long the fragments of a datagram may take: Linux's own limit for reassembly.
const LIFETIME_NS: u64 = 30_000_000_000;

/// Remembers a first fragment that passes, and why; `false` when that cannot be done.
#[inline(never)]
pub fn first(hook: &Hook, header: &Header, passed: u8) -> bool {
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    let stamp = now << 8 | u64::from(passed);
    FRAGMENTS.insert(key(hook, header), stamp, 0).is_ok()
}

/// Whether a later fragment may follow its first: the code of the reason.
#[inline(never)]
pub fn later(hook: &Hook, header: &Header, offset: u32) -> u8 {
    if transport::overlaps(header, offset) {
        return Reason::Fragment as u8;
    }
    // SAFETY: the entry is read once; another CPU may replace it, not tear it.
    let stamp = unsafe { FRAGMENTS.get(key(hook, header)) }.copied();
    let Some(stamp) = stamp else { return Reason::Fragment as u8 };
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    if (now << 8).wrapping_sub(stamp & !0xff) > LIFETIME_NS << 8 {
        return Reason::Fragment as u8;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the low byte is the reason")]
    let reason = stamp as u8;
    reason
}

#[inline(always)]
fn key(hook: &Hook, header: &Header) -> FragmentKey {
    FragmentKey {
        owner: owner(hook),
        identification: header.identification,
        source: bytes(header.source),
        destination: bytes(header.destination),
        protocol: header.protocol,
        padding: [0; 3],
    }
}
