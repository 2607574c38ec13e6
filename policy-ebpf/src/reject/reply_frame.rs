//! Builds the frame of a reply and replaces the denied packet with it.

use aya_ebpf::{helpers::bpf_skb_change_tail, programs::TcContext};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{
    TRANSPORT_OFFSET_V4, TRANSPORT_OFFSET_V6,
    checksum::{checksum_partial_sum, fold_checksum},
};
use crate::{
    constant_length::{length_as_u16, length_as_u32},
    ip_header::ETHERNET_HEADER_LEN,
    packet_context::skb_pointer,
    packet_view::PacketView,
};

const REPLY_TTL: u8 = 64;

/// The last M bytes of the frame, which are its ICMP message.
#[inline(always)]
pub(super) fn last_bytes<const N: usize, const M: usize>(frame: &[u8; N]) -> &[u8; M] {
    const { assert!(M <= N) };
    // SAFETY: the M bytes are within the frame, and bytes need no alignment.
    unsafe { &*frame.as_ptr().add(N - M).cast() }
}

/// Writes the Ethernet header of the reply, addressed to the sender of the denied frame.
#[inline(always)]
pub(super) fn write_ethernet_header<const N: usize>(
    packet: &PacketView,
    frame: &mut [u8; N],
) -> Option<()> {
    let old = packet.read_at::<[u8; ETHERNET_HEADER_LEN]>(0)?;
    frame[0..6].copy_from_slice(&old[6..12]);
    frame[6..12].copy_from_slice(&old[0..6]);
    frame[12..14].copy_from_slice(&old[12..14]);
    Some(())
}

/// Writes the IPv4 header of the reply. Its source is the denied packet's destination.
#[inline(always)]
pub(super) fn write_ipv4_header<const N: usize>(
    frame: &mut [u8; N],
    old: &[u8; Ipv4Hdr::LEN],
    protocol: u8,
) {
    let mut ip = [0; Ipv4Hdr::LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&const { length_as_u16(N - ETHERNET_HEADER_LEN) }.to_be_bytes());
    ip[6] = 0x40; // do not fragment
    ip[8] = REPLY_TTL;
    ip[9] = protocol;
    ip[12..16].copy_from_slice(&old[16..20]);
    ip[16..20].copy_from_slice(&old[12..16]);
    let checksum = !fold_checksum(checksum_partial_sum(&ip, 0).unwrap_or(0));
    ip[10..12].copy_from_slice(&checksum.to_ne_bytes());
    frame[ETHERNET_HEADER_LEN..TRANSPORT_OFFSET_V4].copy_from_slice(&ip);
}

/// Writes the IPv6 header of the reply.
#[inline(always)]
pub(super) fn write_ipv6_header<const N: usize>(
    frame: &mut [u8; N],
    old: &[u8; Ipv6Hdr::LEN],
    protocol: u8,
    length: u8,
) {
    let mut ip = [0; Ipv6Hdr::LEN];
    ip[0] = 0x60;
    ip[5] = length;
    ip[6] = protocol;
    ip[7] = REPLY_TTL;
    ip[8..24].copy_from_slice(&old[24..40]);
    ip[24..40].copy_from_slice(&old[8..24]);
    frame[ETHERNET_HEADER_LEN..TRANSPORT_OFFSET_V6].copy_from_slice(&ip);
}

/// Replaces the packet with the frame.
#[inline(always)]
pub(super) fn replace_frame<const N: usize>(ctx: &TcContext, frame: &[u8; N]) -> Option<()> {
    // SAFETY: the context is valid. The helper checks the length.
    let resized = unsafe { bpf_skb_change_tail(skb_pointer(ctx), const { length_as_u32(N) }, 0) };
    if resized != 0 {
        return None;
    }
    ctx.skb.store(0, frame, 0).ok()
}
