//! The frame of an answer: its headers, and how it takes the place of the denied packet.

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

/// The last M bytes of the frame: its ICMP message.
#[inline(always)]
pub(super) fn last_bytes<const N: usize, const M: usize>(frame: &[u8; N]) -> &[u8; M] {
    const { assert!(M <= N) };
    // SAFETY: the M bytes lie within the frame, and bytes need no alignment.
    unsafe { &*frame.as_ptr().add(N - M).cast() }
}

/// The Ethernet header of the answer: back to where the frame came from.
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

/// The IPv4 header of the answer: it comes from the address that was asked for.
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

/// The IPv6 header of the answer.
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

/// Makes the frame the packet.
#[inline(always)]
pub(super) fn replace_frame<const N: usize>(ctx: &TcContext, frame: &[u8; N]) -> Option<()> {
    // SAFETY: the context is valid; the helper checks the length.
    let resized = unsafe { bpf_skb_change_tail(skb_pointer(ctx), const { length_as_u32(N) }, 0) };
    if resized != 0 {
        return None;
    }
    ctx.skb.store(0, frame, 0).ok()
}
