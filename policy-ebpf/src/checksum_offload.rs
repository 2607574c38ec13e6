//! Line 1 for checksums that the sandbox leaves to the device.
//!
//! With checksum offload (`CHECKSUM_PARTIAL`) the sandbox specifies where the checksum belongs, and
//! the host writes it there when the packet leaves, which is after the verdict. A sandbox that
//! specifies another offset could have two bytes of an address, of the ports or of the TCP flags
//! overwritten. In IPv4 the header checksum protects the addresses, so packets that pass by lines
//! 4, 6 or 9 need no check. Neither do packets for the egress proxy, which do not leave the host.

use aya_ebpf::{helpers::bpf_probe_read_kernel, programs::TcContext};
use policy_common::{reason::Reason, skb::SkbLayout};

use crate::{
    disposition::{PacketDisposition, PacketResult},
    ip_header::{FragmentPart, IPPROTO_TCP, IPPROTO_UDP},
    packet_context::skb_pointer,
    parsed_headers::ParsedHeaders,
};

const IPPROTO_SCTP: u8 = 132;
/// The value of `ip_summed` for offloaded checksums.
const CHECKSUM_PARTIAL: u8 = 3;

/// Set by the agent before loading.
#[unsafe(no_mangle)]
static SKB_LAYOUT: SkbLayout =
    SkbLayout { ip_summed: 0, ip_summed_shift: 0, csum_start: 0, csum_offset: 0, head: 0, data: 0 };

/// Denies a packet if a checksum may later be written over fields that the verdict depends on.
#[inline(always)]
pub(crate) fn deny_misplaced_checksum(
    ctx: &TcContext,
    headers: &ParsedHeaders,
    disposition: PacketDisposition,
) -> PacketResult<PacketDisposition> {
    let reason = disposition.verdict().reason_code;
    let by_header = reason == Reason::Reply as u8 || reason == Reason::Neighbor as u8;
    if (headers.ip_header.is_v6 || by_header) && !is_checksum_harmless(ctx, headers) {
        return Err(Reason::Malformed.into());
    }
    Ok(disposition)
}

/// Whether the checksum is complete, or will be written at the protocol's checksum field or after
/// it.
#[inline(never)]
fn is_checksum_harmless(ctx: &TcContext, headers: &ParsedHeaders) -> bool {
    // SAFETY: the global is initialised and never written while programs run. The read is volatile
    // because the value is set after compilation.
    let layout = unsafe { core::ptr::read_volatile(&raw const SKB_LAYOUT) };
    match read_skb_field::<u8>(ctx, layout.ip_summed) {
        Some(bits) if (bits >> layout.ip_summed_shift) & CHECKSUM_PARTIAL != CHECKSUM_PARTIAL => {
            return true;
        }
        Some(_) => {}
        None => return false,
    }
    let checksum = match (headers.ip_header.fragment_part, headers.ip_header.protocol) {
        (FragmentPart::WholeDatagram, IPPROTO_TCP) => 16,
        (FragmentPart::WholeDatagram, IPPROTO_UDP) => 6,
        (FragmentPart::WholeDatagram, IPPROTO_SCTP) => 8,
        _ => return false,
    };
    // All offsets are relative to `head`. The frame starts at `data`.
    let Some(start) = read_skb_field::<u16>(ctx, layout.csum_start) else { return false };
    let Some(offset) = read_skb_field::<u16>(ctx, layout.csum_offset) else { return false };
    let Some(head) = read_skb_field::<u64>(ctx, layout.head) else { return false };
    let Some(data) = read_skb_field::<u64>(ctx, layout.data) else { return false };
    let frame = data.wrapping_sub(head);
    u64::from(start) + u64::from(offset)
        >= frame + headers.ip_header.transport_offset as u64 + checksum
}

/// Reads a field of the kernel's `struct sk_buff`. The context pointer refers to it, although the
/// verifier only allows access to `__sk_buff`.
#[inline(always)]
fn read_skb_field<T>(ctx: &TcContext, at: u32) -> Option<T> {
    let field = skb_pointer(ctx).wrapping_byte_add(at as usize).cast::<T>();
    // SAFETY: the helper accepts any address and fails if it cannot be read.
    unsafe { bpf_probe_read_kernel(field.cast_const()) }.ok()
}
