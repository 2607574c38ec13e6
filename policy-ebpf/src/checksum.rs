//! Line 1 for checksums that the sandbox left to the device.
//!
//! With checksum offload (`CHECKSUM_PARTIAL`) the sandbox says where a checksum belongs, and the host
//! writes it there when the packet leaves: after it was judged. A sandbox that names another place
//! could have two bytes of an address, of the ports or of the TCP flags rewritten. The header
//! checksum keeps IPv4 addresses safe from that, so what line 4, 6 or 9 lets pass in IPv4 need not
//! be looked at. Nor need what the egress proxy gets, which does not leave.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::TcContext};
use policy_common::{reason::Reason, skb::SkbLayout};

use crate::{
    context::{Seen, skb},
    header::{Part, TCP, UDP},
    outcome::{Judgement, Way},
};

const SCTP: u8 = 132;
/// `CHECKSUM_PARTIAL` of `ip_summed`.
const PARTIAL: u8 = 3;

/// Filled in by the agent.
#[unsafe(no_mangle)]
static SKB_LAYOUT: SkbLayout =
    SkbLayout { summed: 0, summed_shift: 0, start: 0, offset: 0, head: 0, data: 0 };

/// Lets a packet pass if no checksum will be written over what was judged.
#[inline(always)]
pub fn confirm(ctx: &TcContext, seen: &Seen, way: Way) -> Judgement<Way> {
    let reason = way.verdict().reason;
    let by_header = reason == Reason::Reply as u8 || reason == Reason::Neighbor as u8;
    if (seen.header.v6 || by_header) && !is_harmless(ctx, seen) {
        return Err(Reason::Malformed.into());
    }
    Ok(way)
}

/// Whether the checksum is complete, or will be written where the protocol has it or behind.
#[inline(never)]
fn is_harmless(ctx: &TcContext, seen: &Seen) -> bool {
    // SAFETY: the global is initialised and never written to while programs run. Volatile, since its
    // value here is not the one that it is compiled with.
    let layout = unsafe { core::ptr::read_volatile(&raw const SKB_LAYOUT) };
    match field::<u8>(ctx, layout.summed) {
        Some(bits) if (bits >> layout.summed_shift) & PARTIAL != PARTIAL => return true,
        Some(_) => {}
        None => return false,
    }
    let checksum = match (seen.header.part, seen.header.protocol) {
        (Part::Whole, TCP) => 16,
        (Part::Whole, UDP) => 6,
        (Part::Whole, SCTP) => 8,
        _ => return false,
    };
    // All counted from the start of the kernel's buffer, in which the frame begins somewhere.
    let Some(start) = field::<u16>(ctx, layout.start) else { return false };
    let Some(offset) = field::<u16>(ctx, layout.offset) else { return false };
    let Some(head) = field::<u64>(ctx, layout.head) else { return false };
    let Some(data) = field::<u64>(ctx, layout.data) else { return false };
    let frame = data.wrapping_sub(head);
    u64::from(start) + u64::from(offset) >= frame + seen.header.transport as u64 + checksum
}

/// A field of the kernel's own `struct sk_buff`, which is what the context is behind the verifier's
/// view of it.
#[inline(always)]
fn field<T>(ctx: &TcContext, at: u32) -> Option<T> {
    let field = skb(ctx).wrapping_byte_add(at as usize).cast::<T>();
    // SAFETY: the helper reads any address, and fails where there is nothing.
    unsafe { bpf_probe_read_kernel(field.cast_const()) }.ok()
}
