//! The ICMP error sent in reply to a denied packet other than TCP.

use aya_ebpf::programs::TcContext;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};

use super::{
    TRANSPORT_OFFSET_V4, TRANSPORT_OFFSET_V6,
    checksum::{checksum_partial_sum, fold_checksum, pseudo_header_sum_v6},
    reply_frame::{
        last_bytes, replace_frame, write_ethernet_header, write_ipv4_header, write_ipv6_header,
    },
};
use crate::{
    constant_length::length_as_u8,
    ip_header::{IPPROTO_ICMP, IPPROTO_ICMPV6},
    packet_view::PacketView,
};

const ICMP_HEADER_LEN: usize = 8;
/// Length of the quote in an ICMP error: the IP header of the denied packet and 8 bytes.
const ICMP_QUOTE_LEN_V4: usize = Ipv4Hdr::LEN + 8;
const ICMP_QUOTE_LEN_V6: usize = Ipv6Hdr::LEN + 8;

#[inline(always)]
pub(super) fn send_prohibited_v4(
    ctx: &TcContext,
    packet: &PacketView,
    ip: [u8; Ipv4Hdr::LEN],
) -> Option<()> {
    let start = *packet.read_at::<[u8; 8]>(TRANSPORT_OFFSET_V4)?;
    // Only requests get a reply, never errors (RFC 1122, 3.2.2).
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
pub(super) fn send_prohibited_v6(
    ctx: &TcContext,
    packet: &PacketView,
    ip: [u8; Ipv6Hdr::LEN],
) -> Option<()> {
    let start = *packet.read_at::<[u8; 8]>(TRANSPORT_OFFSET_V6)?;
    // Errors, which have types below 128, get no reply (RFC 4443, 2.4).
    if ip[6] == IPPROTO_ICMPV6 && start[0] < 128 {
        return None;
    }
    const ICMP_MESSAGE_LEN: usize = ICMP_HEADER_LEN + ICMP_QUOTE_LEN_V6;
    let mut frame = [0; TRANSPORT_OFFSET_V6 + ICMP_MESSAGE_LEN];
    write_ethernet_header(packet, &mut frame)?;
    write_ipv6_header(&mut frame, &ip, IPPROTO_ICMPV6, const { length_as_u8(ICMP_MESSAGE_LEN) });
    frame[TRANSPORT_OFFSET_V6] = 1; // destination unreachable
    frame[TRANSPORT_OFFSET_V6 + 1] = 1; // communication administratively prohibited
    frame[TRANSPORT_OFFSET_V6 + 8..TRANSPORT_OFFSET_V6 + 48].copy_from_slice(&ip);
    frame[TRANSPORT_OFFSET_V6 + 48..].copy_from_slice(&start);
    let checksum = !fold_checksum(checksum_partial_sum(
        last_bytes::<_, ICMP_MESSAGE_LEN>(&frame),
        pseudo_header_sum_v6(&ip, IPPROTO_ICMPV6, const { length_as_u8(ICMP_MESSAGE_LEN) })?,
    )?);
    frame[TRANSPORT_OFFSET_V6 + 2..TRANSPORT_OFFSET_V6 + 4]
        .copy_from_slice(&checksum.to_ne_bytes());
    replace_frame(ctx, &frame)
}
