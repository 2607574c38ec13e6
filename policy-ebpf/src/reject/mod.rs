//! Replies to denied packets, so that programs fail immediately: a reset for TCP, ICMP
//! "administratively prohibited" for everything else (RFC 1812, 5.2.7.1; RFC 4443, 3.1).
//!
//! The denied packet is rewritten into the reply and sent back out of its interface. If that is not
//! possible, it is dropped.

mod checksum;
mod icmp_prohibited;
mod reply_frame;
mod tcp_reset;

use aya_ebpf::{bindings::TC_ACT_SHOT, helpers::bpf_redirect, programs::TcContext};
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use policy_common::{endpoint::ENDPOINT_REJECT_DENIED, reason::Reason, verdict::Verdict};

use crate::{
    event_limits,
    extension_headers::is_extension_header,
    ip_header::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FragmentPart, IPPROTO_TCP},
    maps::SANDBOXES,
    packet_context::{PacketContext, skb_pointer},
    packet_view::PacketView,
    parsed_headers::ParsedHeaders,
};

const TRANSPORT_OFFSET_V4: usize = ETHERNET_HEADER_LEN + Ipv4Hdr::LEN;
const TRANSPORT_OFFSET_V6: usize = ETHERNET_HEADER_LEN + Ipv6Hdr::LEN;

/// Whether to reply to a denied packet. Takes a token if so.
#[inline(never)]
pub(crate) fn take_reject_token(
    hook: &PacketContext,
    headers: &ParsedHeaders,
    verdict: Verdict,
) -> bool {
    let wanted =
        SANDBOXES.get(hook.slot).is_some_and(|sandbox| sandbox.flags & ENDPOINT_REJECT_DENIED != 0);
    let answered = Reason::from_code(verdict.reason_code).is_some_and(Reason::is_rejectable);
    // A later fragment contains no ports to reply to.
    if !wanted || !answered || headers.ip_header.fragment_part == FragmentPart::LaterFragment {
        return false;
    }
    event_limits::take_reply_token(hook.slot) != 0
}

/// Replies to a denied packet. Returns the hook's return code.
#[inline(always)]
pub(crate) fn send_reject(ctx: &TcContext) -> i32 {
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
    // SAFETY: the context is valid while the program runs. The helper only stores the interface.
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
        tcp_reset::send_reset_v4(ctx, packet, ip)
    } else {
        icmp_prohibited::send_prohibited_v4(ctx, packet, ip)
    }
}

#[inline(always)]
fn reject_v6(ctx: &TcContext, packet: &PacketView) -> Option<()> {
    let ip = *packet.read_at::<[u8; Ipv6Hdr::LEN]>(ETHERNET_HEADER_LEN)?;
    if ip[24] == 0xff || is_extension_header(ip[6]) {
        return None;
    }
    if ip[6] == IPPROTO_TCP {
        tcp_reset::send_reset_v6(ctx, packet, ip)
    } else {
        icmp_prohibited::send_prohibited_v6(ctx, packet, ip)
    }
}
