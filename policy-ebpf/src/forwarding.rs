//! Whether the host's stack would forward an IPv6 packet.

use aya_ebpf::{bindings::bpf_fib_lookup, helpers::bpf_fib_lookup as bpf_fib_lookup_helper};

use crate::{constant_length::length_as_u32, ip_header::IpHeader, packet_context::PacketContext};

/// `lo`, in every network namespace.
const LOOPBACK_IFINDEX: u32 = 1;
/// Answer of `bpf_fib_lookup`: the forwarding switch of the interface is off.
const FIB_FORWARDING_DISABLED: i64 = 5;

/// Whether the host might forward a packet to this destination instead of receiving it.
///
/// If the interface's own forwarding switch is off, the lookup ends there, although the stack goes
/// by `all.forwarding` and, since Linux 6.17, by `force_forwarding`. The lookup is then repeated
/// from the loopback interface, whose switch follows `all.forwarding`. If that does not answer
/// either, the packet counts as forwarded.
#[inline(always)]
pub(crate) fn would_be_forwarded(hook: &PacketContext, header: &IpHeader) -> bool {
    let mut answer = look_up_route(hook, header, hook.ifindex);
    if answer == FIB_FORWARDING_DISABLED {
        answer = look_up_route(hook, header, LOOPBACK_IFINDEX);
    }
    // 1 to 4: blackhole, unreachable or prohibit routes; local or no route.
    !matches!(answer, 1..=4)
}

/// The host's answer about the route of a packet that arrives at an interface.
#[inline(never)] // the parameters are large, and callers have little stack space left
fn look_up_route(hook: &PacketContext, header: &IpHeader, ifindex: u32) -> i64 {
    const AF_INET6: u8 = 10;
    // SAFETY: integers and byte arrays, for which zero is valid.
    let mut question: bpf_fib_lookup = unsafe { core::mem::zeroed() };
    question.family = AF_INET6;
    question.ifindex = ifindex;
    question.__bindgen_anon_3.ipv6_src = header.source;
    question.__bindgen_anon_4.ipv6_dst = header.destination;
    let size = const { length_as_u32(size_of::<bpf_fib_lookup>()).cast_signed() };
    // SAFETY: the context is valid while the program runs. The helper reads and writes `question`.
    unsafe { bpf_fib_lookup_helper(hook.raw_context, &raw mut question, size, 0) }
}
