//! Line 1 for fragments: a later fragment passes if the first fragment of its datagram passed.
//!
//! The first fragment is judged like a whole datagram and must contain the whole transport header.
//! Later fragments carry no ports and are matched by source, destination, protocol and
//! identification.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use policy_common::{flow::FragmentedDatagramKey, reason::Reason, verdict::Verdict};

use crate::{
    endpoint::endpoint_instance_id,
    ip_header::{IpHeader, address_to_bytes},
    maps::FRAGMENTS,
    packet_context::PacketContext,
    transport,
};

/// Maximum time between the fragments of a datagram, in ticks. Linux uses the same limit for
/// reassembly.
const REASSEMBLY_TIMEOUT_TICKS: u64 = 30_000_000_000 >> 20;

/// Stores that a first fragment passes, and why. Returns `false` if it cannot be stored.
#[inline(never)]
pub(crate) fn remember_first_fragment(
    hook: &PacketContext,
    header: &IpHeader,
    passed: Verdict,
) -> bool {
    let stamp =
        current_ticks() << 24 | u64::from(passed.policy_id) << 8 | u64::from(passed.reason_code);
    FRAGMENTS.insert(datagram_key(hook, header), stamp, 0).is_ok()
}

/// Returns the reason code for a later fragment. The first fragment must have passed under the
/// current policy.
#[inline(never)]
pub(crate) fn judge_later_fragment(hook: &PacketContext, header: &IpHeader, policy: u16) -> u8 {
    if transport::overlaps_transport_header(header) {
        return Reason::Fragment as u8;
    }
    // SAFETY: the entry is read once. Another CPU may replace it, but never partially.
    let stamp = unsafe { FRAGMENTS.get(datagram_key(hook, header)) }.copied();
    let Some(stamp) = stamp else { return Reason::Fragment as u8 };
    let same_policy = stamp >> 8 & 0xffff == u64::from(policy);
    if !same_policy || current_ticks().wrapping_sub(stamp >> 24) > REASSEMBLY_TIMEOUT_TICKS {
        return Reason::Fragment as u8;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the low byte is the reason")]
    let reason = stamp as u8;
    reason
}

/// The time in units of 2²⁰ ns. 40 bits of it last for 36 years.
#[inline(always)]
pub(crate) fn current_ticks() -> u64 {
    // SAFETY: the helper reads a clock.
    unsafe { bpf_ktime_get_ns() >> 20 }
}

#[inline(always)]
fn datagram_key(hook: &PacketContext, header: &IpHeader) -> FragmentedDatagramKey {
    FragmentedDatagramKey {
        instance_id: endpoint_instance_id(hook),
        identification: header.identification,
        source_address: address_to_bytes(header.source),
        destination_address: address_to_bytes(header.destination),
        protocol: header.protocol,
        padding: [0; 3],
    }
}
