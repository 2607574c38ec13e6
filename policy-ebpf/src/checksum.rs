//! Line 1 for checksums that the sandbox left to the device.
//!
//! With checksum offload (`CHECKSUM_PARTIAL`) the sandbox says where a checksum belongs, and the host
//! writes it there when the packet leaves: after it was judged. A sandbox that names another place
//! could have two bytes of an address, of the ports or of the TCP flags rewritten. The header
//! checksum keeps IPv4 addresses safe from that, so what line 4, 6 or 9 lets pass in IPv4 need not
//! be looked at. Nor need what the egress proxy gets, which does not leave.

use aya_ebpf::{
    helpers::{bpf_l4_csum_replace, bpf_skb_change_tail},
    programs::TcContext,
};
use policy_common::reason::Reason;

use crate::{
    context::{Seen, skb, view},
    header::{ETHERNET, Part, TCP, UDP},
    outcome::{Judgement, Way},
};

const SCTP: u8 = 132;
/// Two bytes that every frame has that passes.
const PROBE: usize = ETHERNET + 2;

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
    match is_partial(ctx) {
        Some(false) => return true,
        Some(true) => {}
        None => return false,
    }
    let checksum = match (seen.header.part, seen.header.protocol) {
        (Part::Whole, TCP) => 16,
        (Part::Whole, UDP) => 6,
        (Part::Whole, SCTP) => 8,
        _ => return false,
    };
    // The kernel refuses to cut a packet off before the end of the place where its checksum will
    // be. If it does cut, that place lies too far in front, and the packet is dropped.
    #[expect(clippy::cast_possible_truncation, reason = "headers lie in the first 2 KiB")]
    let before = (seen.header.transport + checksum + 1) as u32;
    // SAFETY: the context is valid while the program runs; the helper checks the length.
    unsafe { bpf_skb_change_tail(skb(ctx), before, 0) != 0 }
}

/// Whether the checksum is left to the device. Programs cannot see that, but
/// `bpf_l4_csum_replace` leaves the field of such a packet alone; another's is put back.
#[inline(always)]
fn is_partial(ctx: &TcContext) -> Option<bool> {
    let before = *view(ctx).read::<[u8; 2]>(PROBE)?;
    // SAFETY: the context is valid while the program runs; the helper checks the offset.
    if unsafe { bpf_l4_csum_replace(skb(ctx), PROBE as u32, 0, 1, 2) } != 0 {
        return None;
    }
    let after = *view(ctx).read::<[u8; 2]>(PROBE)?;
    if before[0] == after[0] && before[1] == after[1] {
        return Some(true);
    }
    ctx.store(PROBE, &before, 0).ok()?;
    Some(false)
}
