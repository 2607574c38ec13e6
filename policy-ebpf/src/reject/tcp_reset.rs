//! The TCP reset sent in reply to a denied segment.

use aya_ebpf::{helpers::bpf_l4_csum_replace, programs::TcContext};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{
    TRANSPORT_OFFSET_V4, TRANSPORT_OFFSET_V6,
    checksum::{checksum_partial_sum, fold_checksum, pseudo_header_sum_v6, pseudo_header_v4},
    reply_frame::{replace_frame, write_ethernet_header, write_ipv4_header, write_ipv6_header},
};
use crate::{
    constant_length::{length_as_u8, length_as_u16},
    ip_header::IPPROTO_TCP,
    packet_context::skb_pointer,
    packet_view::PacketView,
};

const TCP_SYN: u8 = 0x02;
const TCP_FIN: u8 = 0x01;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
const TCP_HEADER_LEN: usize = 20;
const TCP_LENGTH_BYTE: u8 = length_as_u8(TCP_HEADER_LEN);

#[inline(always)]
pub(super) fn send_reset_v4(
    ctx: &TcContext,
    packet: &PacketView,
    ip: [u8; Ipv4Hdr::LEN],
) -> Option<()> {
    let payload =
        u16::from_be_bytes([ip[2], ip[3]]).checked_sub(const { length_as_u16(Ipv4Hdr::LEN) })?;
    let tcp = build_reset(packet.read_at::<[u8; TCP_HEADER_LEN]>(TRANSPORT_OFFSET_V4)?, payload)?;
    let mut frame = [0; TRANSPORT_OFFSET_V4 + TCP_HEADER_LEN];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv4_header(&mut frame, &ip, IPPROTO_TCP);
    frame[TRANSPORT_OFFSET_V4..].copy_from_slice(&tcp);
    let pseudo = checksum_partial_sum(&pseudo_header_v4(&ip, IPPROTO_TCP, TCP_LENGTH_BYTE), 0)?;
    send_tcp_reset(
        ctx,
        &mut frame,
        TRANSPORT_OFFSET_V4,
        pseudo,
        checksum_partial_sum(&tcp, pseudo)?,
    )
}

#[inline(always)]
pub(super) fn send_reset_v6(
    ctx: &TcContext,
    packet: &PacketView,
    ip: [u8; Ipv6Hdr::LEN],
) -> Option<()> {
    let payload = u16::from_be_bytes([ip[4], ip[5]]);
    let tcp = build_reset(packet.read_at::<[u8; TCP_HEADER_LEN]>(TRANSPORT_OFFSET_V6)?, payload)?;
    let mut frame = [0; TRANSPORT_OFFSET_V6 + TCP_HEADER_LEN];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv6_header(&mut frame, &ip, IPPROTO_TCP, TCP_LENGTH_BYTE);
    frame[TRANSPORT_OFFSET_V6..].copy_from_slice(&tcp);
    let pseudo = pseudo_header_sum_v6(&ip, IPPROTO_TCP, TCP_LENGTH_BYTE)?;
    send_tcp_reset(
        ctx,
        &mut frame,
        TRANSPORT_OFFSET_V6,
        pseudo,
        checksum_partial_sum(&tcp, pseudo)?,
    )
}

/// The TCP header of the reset (RFC 9293, 3.10.7.1). A reset gets no reply.
#[inline(always)]
fn build_reset(tcp: &[u8; TCP_HEADER_LEN], payload: u16) -> Option<[u8; TCP_HEADER_LEN]> {
    let flags = tcp[13];
    if flags & TCP_RST != 0 {
        return None;
    }
    let mut answer = [0; TCP_HEADER_LEN];
    answer[0..2].copy_from_slice(&tcp[2..4]);
    answer[2..4].copy_from_slice(&tcp[0..2]);
    answer[12] = 0x50; // header length: five words
    if flags & TCP_ACK != 0 {
        answer[4..8].copy_from_slice(&tcp[8..12]);
        answer[13] = TCP_RST;
    } else {
        let header = u32::from(tcp[12] >> 4) * 4;
        let control = u32::from(flags & TCP_SYN != 0) + u32::from(flags & TCP_FIN != 0);
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        let end = sequence.wrapping_add(u32::from(payload)).wrapping_sub(header) + control;
        answer[8..12].copy_from_slice(&end.to_be_bytes());
        answer[13] = TCP_RST | TCP_ACK;
    }
    Some(answer)
}

/// Writes a TCP reply and its checksum.
///
/// A sandbox with virtio or veth may have left the checksum to the device (`CHECKSUM_PARTIAL`). The
/// field must then contain the sum of the pseudo header, and the device completes it. Otherwise it
/// must contain the complete checksum. The program cannot tell these cases apart, but
/// `bpf_l4_csum_replace` can: it does not modify the field of an offloaded packet. So the field is
/// initialised with the sum of the pseudo header, and the replacement adds the difference to the
/// complete checksum.
#[inline(always)]
fn send_tcp_reset<const N: usize>(
    ctx: &TcContext,
    frame: &mut [u8; N],
    transport: usize,
    pseudo: u32,
    whole: u32,
) -> Option<()> {
    let (pseudo, whole) = (fold_checksum(pseudo), fold_checksum(whole));
    frame[transport + 16..transport + 18].copy_from_slice(&pseudo.to_ne_bytes());
    replace_frame(ctx, frame)?;
    let difference = fold_checksum(u32::from(pseudo) + u32::from(whole));
    let offset = u32::try_from(transport + 16).ok()?;
    // SAFETY: the context is valid. The helper checks the offset.
    let result =
        unsafe { bpf_l4_csum_replace(skb_pointer(ctx), offset, 0, u64::from(difference), 2) };
    (result == 0).then_some(())
}
