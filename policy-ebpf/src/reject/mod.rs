//! Answers to denied packets, so that programs fail at once: TCP gets a reset, the rest ICMP
//! "administratively prohibited" (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
//!
//! The packet itself is turned into the answer and sent back out of the interface it came from.
//! Where it cannot be answered it is dropped.

use aya_ebpf::{
    bindings::TC_ACT_SHOT,
    helpers::{
        bpf_csum_diff, bpf_ktime_get_ns, bpf_l4_csum_replace, bpf_redirect, bpf_skb_change_tail,
    },
    programs::TcContext,
};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use policy_common::{
    endpoint::ENDPOINT_REJECT_DENIED, rate_limit, reason::Reason, verdict::Verdict,
};

use crate::{
    header::{
        ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FragmentPart, IPPROTO_ICMP,
        IPPROTO_ICMPV6, IPPROTO_TCP, is_extension_header,
    },
    maps::{LIMITS, SANDBOXES},
    packet_context::{PacketContext, ParsedHeaders, skb_pointer},
    packet_view::PacketView,
};

const REPLY_TTL: u8 = 64;
const TCP_SYN: u8 = 0x02;
const TCP_FIN: u8 = 0x01;
const TCP_RST: u8 = 0x04;
const TCP_ACK: u8 = 0x10;
const TCP_HEADER_LEN: usize = 20;
const ICMP_HEADER_LEN: usize = 8;
/// The start of the denied packet that an ICMP error carries: its IP header and 8 bytes.
const ICMP_QUOTE_LEN_V4: usize = Ipv4Hdr::LEN + 8;
const ICMP_QUOTE_LEN_V6: usize = Ipv6Hdr::LEN + 8;
const TRANSPORT_OFFSET_V4: usize = ETHERNET_HEADER_LEN + Ipv4Hdr::LEN;
const TRANSPORT_OFFSET_V6: usize = ETHERNET_HEADER_LEN + Ipv6Hdr::LEN;

/// Whether a denied packet is answered; takes a token if it is.
#[inline(never)]
pub fn take_reject_token(hook: &PacketContext, seen: &ParsedHeaders, verdict: Verdict) -> bool {
    let wanted =
        SANDBOXES.get(hook.slot).is_some_and(|sandbox| sandbox.flags & ENDPOINT_REJECT_DENIED != 0);
    let answered = Reason::from_code(verdict.reason_code).is_some_and(Reason::is_rejectable);
    // Behind the header of a later fragment stand no ports to answer to.
    if !wanted || !answered || seen.ip_header.fragment_part == FragmentPart::LaterFragment {
        return false;
    }
    let Some(limits) = LIMITS.get_ptr_mut(hook.slot) else { return false };
    // SAFETY: the helper reads a clock.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: valid while the program runs; a race lets a token more or less through.
    let Some(next) =
        rate_limit::REJECT_RATE_LIMIT.take_token(unsafe { (*limits).reject_bucket }, now)
    else {
        return false;
    };
    // SAFETY: as above.
    unsafe { (*limits).reject_bucket = next };
    true
}

/// Answers a denied packet: the hook's return code.
#[inline(always)]
pub fn send_reject(ctx: &TcContext) -> i32 {
    let packet = PacketView::new(ctx.data(), ctx.data_end());
    let to_group = packet.read_at::<[u8; 6]>(0).is_none_or(|mac| mac[0] & 1 != 0);
    if to_group {
        return TC_ACT_SHOT;
    }
    let sent = match packet.read_at::<[u8; 2]>(12) {
        Some(&ETHERTYPE_IPV4) => reject_v4(ctx, &packet),
        Some(&ETHERTYPE_IPV6) => reject_v6(ctx, &packet),
        _ => None,
    };
    if sent.is_none() {
        return TC_ACT_SHOT;
    }
    // SAFETY: the context is valid while the program runs. The helper only notes the interface.
    let action = unsafe { bpf_redirect((*skb_pointer(ctx)).ifindex, 0) };
    i32::try_from(action).unwrap_or(TC_ACT_SHOT)
}

#[inline(always)]
fn reject_v4(ctx: &TcContext, packet: &PacketView) -> Option<()> {
    let ip = *packet.read_at::<[u8; Ipv4Hdr::LEN]>(ETHERNET_HEADER_LEN)?;
    let to_many = ip[16] >= 224 || [ip[16], ip[17], ip[18], ip[19]] == [255; 4];
    if to_many {
        return None;
    }
    if ip[9] == IPPROTO_TCP {
        send_reset_v4(ctx, packet, ip)
    } else {
        send_prohibited_v4(ctx, packet, ip)
    }
}

#[inline(always)]
fn reject_v6(ctx: &TcContext, packet: &PacketView) -> Option<()> {
    let ip = *packet.read_at::<[u8; Ipv6Hdr::LEN]>(ETHERNET_HEADER_LEN)?;
    if ip[24] == 0xff || is_extension_header(ip[6]) {
        return None;
    }
    if ip[6] == IPPROTO_TCP {
        send_reset_v6(ctx, packet, ip)
    } else {
        send_prohibited_v6(ctx, packet, ip)
    }
}

#[inline(always)]
fn send_reset_v4(ctx: &TcContext, packet: &PacketView, ip: [u8; Ipv4Hdr::LEN]) -> Option<()> {
    let payload = u16::from_be_bytes([ip[2], ip[3]]).checked_sub(Ipv4Hdr::LEN as u16)?;
    let tcp = build_reset(packet.read_at::<[u8; TCP_HEADER_LEN]>(TRANSPORT_OFFSET_V4)?, payload)?;
    let mut frame = [0; TRANSPORT_OFFSET_V4 + TCP_HEADER_LEN];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv4_header(&mut frame, &ip, IPPROTO_TCP);
    frame[TRANSPORT_OFFSET_V4..].copy_from_slice(&tcp);
    let pseudo =
        checksum_partial_sum(&pseudo_header_v4(&ip, IPPROTO_TCP, TCP_HEADER_LEN as u8), 0)?;
    send_tcp_reset(
        ctx,
        &mut frame,
        TRANSPORT_OFFSET_V4,
        pseudo,
        checksum_partial_sum(&tcp, pseudo)?,
    )
}

#[inline(always)]
fn send_reset_v6(ctx: &TcContext, packet: &PacketView, ip: [u8; Ipv6Hdr::LEN]) -> Option<()> {
    let payload = u16::from_be_bytes([ip[4], ip[5]]);
    let tcp = build_reset(packet.read_at::<[u8; TCP_HEADER_LEN]>(TRANSPORT_OFFSET_V6)?, payload)?;
    let mut frame = [0; TRANSPORT_OFFSET_V6 + TCP_HEADER_LEN];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv6_header(&mut frame, &ip, IPPROTO_TCP, TCP_HEADER_LEN as u8);
    frame[TRANSPORT_OFFSET_V6..].copy_from_slice(&tcp);
    let pseudo = pseudo_header_sum_v6(&ip, IPPROTO_TCP, TCP_HEADER_LEN as u8)?;
    send_tcp_reset(
        ctx,
        &mut frame,
        TRANSPORT_OFFSET_V6,
        pseudo,
        checksum_partial_sum(&tcp, pseudo)?,
    )
}

/// The TCP header of the reset (RFC 9293, 3.10.7.1). A reset is never answered.
#[inline(always)]
fn build_reset(tcp: &[u8; TCP_HEADER_LEN], payload: u16) -> Option<[u8; TCP_HEADER_LEN]> {
    let flags = tcp[13];
    if flags & TCP_RST != 0 {
        return None;
    }
    let mut answer = [0; TCP_HEADER_LEN];
    answer[0..2].copy_from_slice(&tcp[2..4]);
    answer[2..4].copy_from_slice(&tcp[0..2]);
    answer[12] = 0x50; // five words
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

#[inline(always)]
fn send_prohibited_v4(ctx: &TcContext, packet: &PacketView, ip: [u8; Ipv4Hdr::LEN]) -> Option<()> {
    let start = *packet.read_at::<[u8; 8]>(TRANSPORT_OFFSET_V4)?;
    // Only requests are answered, never errors (RFC 1122, 3.2.2).
    if ip[9] == IPPROTO_ICMP && !matches!(start[0], 0 | 8 | 13) {
        return None;
    }
    let mut frame = [0; TRANSPORT_OFFSET_V4 + ICMP_HEADER_LEN + ICMP_QUOTE_LEN_V4];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv4_header(&mut frame, &ip, IPPROTO_ICMP);
    frame[TRANSPORT_OFFSET_V4] = 3; // destination unreachable
    frame[TRANSPORT_OFFSET_V4 + 1] = 13; // communication administratively prohibited
    frame[TRANSPORT_OFFSET_V4 + 8..TRANSPORT_OFFSET_V4 + 28].copy_from_slice(&ip);
    frame[TRANSPORT_OFFSET_V4 + 28..].copy_from_slice(&start);
    let checksum = !fold_checksum(checksum_partial_sum(
        last_bytes::<_, { ICMP_HEADER_LEN + ICMP_QUOTE_LEN_V4 }>(&frame),
        0,
    )?);
    frame[TRANSPORT_OFFSET_V4 + 2..TRANSPORT_OFFSET_V4 + 4]
        .copy_from_slice(&checksum.to_ne_bytes());
    replace_frame(ctx, &frame)
}

#[inline(always)]
fn send_prohibited_v6(ctx: &TcContext, packet: &PacketView, ip: [u8; Ipv6Hdr::LEN]) -> Option<()> {
    let start = *packet.read_at::<[u8; 8]>(TRANSPORT_OFFSET_V6)?;
    // Errors, which have types below 128, are not answered (RFC 4443, 2.4).
    if ip[6] == IPPROTO_ICMPV6 && start[0] < 128 {
        return None;
    }
    const ICMP_MESSAGE_LEN: usize = ICMP_HEADER_LEN + ICMP_QUOTE_LEN_V6;
    let mut frame = [0; TRANSPORT_OFFSET_V6 + ICMP_MESSAGE_LEN];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv6_header(&mut frame, &ip, IPPROTO_ICMPV6, ICMP_MESSAGE_LEN as u8);
    frame[TRANSPORT_OFFSET_V6] = 1; // destination unreachable
    frame[TRANSPORT_OFFSET_V6 + 1] = 1; // communication administratively prohibited
    frame[TRANSPORT_OFFSET_V6 + 8..TRANSPORT_OFFSET_V6 + 48].copy_from_slice(&ip);
    frame[TRANSPORT_OFFSET_V6 + 48..].copy_from_slice(&start);
    let checksum = !fold_checksum(checksum_partial_sum(
        last_bytes::<_, ICMP_MESSAGE_LEN>(&frame),
        pseudo_header_sum_v6(&ip, IPPROTO_ICMPV6, ICMP_MESSAGE_LEN as u8)?,
    )?);
    frame[TRANSPORT_OFFSET_V6 + 2..TRANSPORT_OFFSET_V6 + 4]
        .copy_from_slice(&checksum.to_ne_bytes());
    replace_frame(ctx, &frame)
}

/// The last M bytes of the frame: its ICMP message.
#[inline(always)]
fn last_bytes<const N: usize, const M: usize>(frame: &[u8; N]) -> &[u8; M] {
    const { assert!(M <= N) };
    // SAFETY: the M bytes lie within the frame, and bytes need no alignment.
    unsafe { &*frame.as_ptr().add(N - M).cast() }
}

/// The Ethernet header of the answer: back to where the frame came from.
#[inline(always)]
fn write_ethernet_header<const N: usize>(packet: &PacketView, frame: &mut [u8; N]) -> Option<()> {
    let old = packet.read_at::<[u8; ETHERNET_HEADER_LEN]>(0)?;
    frame[0..6].copy_from_slice(&old[6..12]);
    frame[6..12].copy_from_slice(&old[0..6]);
    frame[12..14].copy_from_slice(&old[12..14]);
    Some(())
}

/// The IPv4 header of the answer: it comes from the address that was asked for.
#[inline(always)]
fn write_ipv4_header<const N: usize>(frame: &mut [u8; N], old: &[u8; Ipv4Hdr::LEN], protocol: u8) {
    let mut ip = [0; Ipv4Hdr::LEN];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&((N - ETHERNET_HEADER_LEN) as u16).to_be_bytes());
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
fn write_ipv6_header<const N: usize>(
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

/// The pseudo header that TCP sums over; the order of the addresses does not matter to a sum.
#[inline(always)]
fn pseudo_header_v4(ip: &[u8; Ipv4Hdr::LEN], protocol: u8, length: u8) -> [u8; 12] {
    let mut pseudo = [0; 12];
    pseudo[0..8].copy_from_slice(&ip[12..20]);
    pseudo[9] = protocol;
    pseudo[11] = length;
    pseudo
}

/// The sum over the IPv6 pseudo header.
#[inline(always)]
fn pseudo_header_sum_v6(ip: &[u8; Ipv6Hdr::LEN], protocol: u8, length: u8) -> Option<u32> {
    checksum_partial_sum(
        &[0, 0, 0, length, 0, 0, 0, protocol],
        checksum_partial_sum(last_bytes::<_, 32>(ip), 0)?,
    )
}

/// Writes a TCP answer and its checksum.
///
/// A sandbox with virtio or veth may have left the checksum to the device (`CHECKSUM_PARTIAL`).
/// Then the field has to hold the sum over the pseudo header, and the device does the rest; else
/// it has to hold the whole checksum. The program cannot see which, but `bpf_l4_csum_replace` can:
/// it leaves the field of such a packet alone. So the field starts as the pseudo header's sum, and
/// the replacement is the difference that makes the whole checksum of it.
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
    // SAFETY: the context is valid; the helper checks the offset.
    let result = unsafe {
        bpf_l4_csum_replace(skb_pointer(ctx), (transport + 16) as u32, 0, u64::from(difference), 2)
    };
    (result == 0).then_some(())
}

/// Makes the frame the packet.
#[inline(always)]
fn replace_frame<const N: usize>(ctx: &TcContext, frame: &[u8; N]) -> Option<()> {
    // SAFETY: the context is valid; the helper checks the length.
    let resized = unsafe { bpf_skb_change_tail(skb_pointer(ctx), N as u32, 0) };
    if resized != 0 {
        return None;
    }
    ctx.skb.store(0, frame, 0).ok()
}

/// The 32-bit one's-complement sum over some words, added to `seed`.
#[inline(always)]
fn checksum_partial_sum<const N: usize>(words: &[u8; N], seed: u32) -> Option<u32> {
    const { assert!(N.is_multiple_of(4)) };
    let to = words.as_ptr().cast_mut().cast();
    // SAFETY: the buffer has N bytes; the helper only reads it.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, to, N as u32, seed) };
    u32::try_from(sum).ok()
}

/// The 16-bit one's-complement sum that a 32-bit one stands for.
#[inline(always)]
fn fold_checksum(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    let twice = (once & 0xffff) + (once >> 16);
    twice as u16
}
