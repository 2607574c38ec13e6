//! Line 1 for checksums that the sandbox leaves to the device.
//!
//! With checksum offload (`CHECKSUM_PARTIAL`) the sandbox specifies where the checksum belongs, and
//! the host writes it there when the packet leaves, which is after the verdict. A sandbox that
//! specifies another offset could have two bytes of an address, of the ports or of the TCP flags
//! overwritten. In IPv4 the header checksum protects the addresses, unless two adjacent bytes change
//! from 0x0000 to 0xffff or back: in ones' complement both are zero, at even and at odd offsets.
//! Other IPv4 packets that pass by lines 4, 6 or 9 need no check. Neither do packets for the egress
//! proxy, which do not leave the host.

use aya_ebpf::programs::TcContext;
use policy_common::reason::Reason;

use crate::{
    disposition::{PacketDisposition, PacketResult},
    ip_header::{
        FragmentPart, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP,
    },
    kernel_skb::KernelSkb,
    parsed_headers::ParsedHeaders,
    transport::{TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
};

/// The protocol in the empty header of ARP.
const NO_PROTOCOL: u8 = 0;
/// The value of `ip_summed` for offloaded checksums.
const CHECKSUM_PARTIAL: u8 = 3;

/// Denies a packet if a checksum may later be written over fields that the verdict depends on.
#[inline(always)]
pub(crate) fn deny_misplaced_checksum(
    ctx: &TcContext,
    headers: &ParsedHeaders,
    disposition: PacketDisposition,
) -> PacketResult<PacketDisposition> {
    let reason = disposition.verdict().reason_code;
    let by_header = reason == Reason::Reply as u8 || reason == Reason::Neighbor as u8;
    let header = &headers.ip_header;
    let unprotected = header.is_v6 || has_neutral_bytes(header.source[3], header.destination[3]);
    if (unprotected || by_header) && !is_checksum_harmless(ctx, headers) {
        return Err(Reason::Malformed.into());
    }
    Ok(disposition)
}

/// Whether a packet's IPv4 addresses (in network byte order) contain two adjacent bytes that can
/// change without the header checksum noticing.
#[inline(always)]
pub(crate) fn has_neutral_bytes(source: u32, destination: u32) -> bool {
    let addresses = u64::from(source) | u64::from(destination) << 32;
    has_adjacent_zeros(addresses) || has_adjacent_zeros(!addresses)
}

/// Whether two adjacent bytes are zero.
#[inline(always)]
const fn has_adjacent_zeros(bytes: u64) -> bool {
    const LOW_BITS: u64 = 0x0101_0101_0101_0101;
    // A byte of `merged` is zero if it and the next one are. The highest has no next one.
    let merged = bytes | bytes >> 8 | 0xff << 56;
    merged.wrapping_sub(LOW_BITS) & !merged & LOW_BITS << 7 != 0
}

/// Whether the checksum is complete, or will be written at the protocol's checksum field or after
/// it. Protocols without ports are judged by their addresses, so for them any place behind the IP
/// header will do: tunnels leave the checksum of the inner packet to the device.
#[inline(always)]
fn is_checksum_harmless(ctx: &TcContext, headers: &ParsedHeaders) -> bool {
    let checksum = match (headers.ip_header.fragment_part, headers.ip_header.protocol) {
        (FragmentPart::WholeDatagram, IPPROTO_TCP) => TCP_CHECKSUM_OFFSET,
        (FragmentPart::WholeDatagram, IPPROTO_UDP) => UDP_CHECKSUM_OFFSET,
        (FragmentPart::WholeDatagram, IPPROTO_SCTP) => 8,
        (FragmentPart::WholeDatagram, protocol)
            if !matches!(protocol, IPPROTO_ICMP | IPPROTO_ICMPV6 | NO_PROTOCOL) =>
        {
            0
        }
        _ => return is_checksum_at_or_after(ctx, u32::MAX),
    };
    #[expect(clippy::cast_possible_truncation, reason = "headers lie in the first 2 KiB")]
    let transport = headers.ip_header.transport_offset as u32;
    is_checksum_at_or_after(ctx, transport + checksum)
}

/// Whether the checksum is complete, or will be written at this offset in the frame or after it.
#[inline(never)]
fn is_checksum_at_or_after(ctx: &TcContext, frame_offset: u32) -> bool {
    is_simple_checksum_at_or_after(ctx, frame_offset)
}

/// The same for the fast path, without a call.
#[inline(always)]
pub(crate) fn is_simple_checksum_at_or_after(ctx: &TcContext, frame_offset: u32) -> bool {
    let skb = KernelSkb::new(ctx);
    match skb.read_ip_summed() {
        Some(CHECKSUM_PARTIAL) => is_partial_checksum_at_or_after(&skb, frame_offset),
        Some(_) => true,
        None => false,
    }
}

/// The same for a checksum that is known to be written later.
#[inline(always)]
fn is_partial_checksum_at_or_after(skb: &KernelSkb, frame_offset: u32) -> bool {
    // All offsets are relative to `head`. The frame starts at `data`.
    let Some(start) = skb.read_csum_start() else { return false };
    let Some(offset) = skb.read_csum_offset() else { return false };
    let Some(head) = skb.read_head() else { return false };
    let Some(data) = skb.read_data() else { return false };
    let frame = data.wrapping_sub(head);
    u64::from(start) + u64::from(offset) >= frame + u64::from(frame_offset)
}
