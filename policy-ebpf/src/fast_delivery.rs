//! The fast path to the sandbox: simple packets that open no connection and end none. `to_sandbox`
//! judges all other packets, and would deliver simple ones alike. The tests compare the two.

use aya_ebpf::programs::TcContext;
use policy_common::{
    endpoint::{ENDPOINT_ACTIVE, ENDPOINT_REPORT_FLOWS},
    reason::Reason,
};

use crate::{
    ip_header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_TCP},
    maps::SANDBOXES,
    packet_context::{self, skb_pointer},
    packet_counting,
    simple_frame::{IPV4_HEADER_LEN, SimpleFrame},
};

/// Counts and delivers a packet if it is simple and belongs to a TCP connection, or is a UDP
/// datagram that the host only forwards: the host's own may begin an exchange.
#[inline(always)]
pub(crate) fn deliver_simple_packet(ctx: &TcContext) -> Option<()> {
    // SAFETY: the context is valid while the program runs, and TC programs may read these fields.
    let (slot, has_vlan_tag) =
        unsafe { ((*skb_pointer(ctx)).cb[0], (*skb_pointer(ctx)).vlan_present != 0) };
    let flags = SANDBOXES.get(slot)?.flags;
    let is_plain = flags & (ENDPOINT_ACTIVE | ENDPOINT_REPORT_FLOWS) == ENDPOINT_ACTIVE;
    if !is_plain || has_vlan_tag {
        return None;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    let frame = SimpleFrame::<IPV4_HEADER_LEN>::new(start, end, ctx.len())?;
    let transport = match frame.ethertype() {
        ETHERTYPE_IPV4 => frame.check_ipv4()?,
        ETHERTYPE_IPV6 => SimpleFrame::new(start, end, ctx.len())?.check_ipv6()?,
        _ => return None,
    };
    let is_own_datagram = transport.protocol != IPPROTO_TCP && packet_context::is_from_host(ctx);
    if is_own_datagram || !transport.keeps_connection() {
        return None;
    }
    let (packets, _) = packet_context::count_segments(ctx);
    packet_counting::count_frame(slot, Reason::Delivered as u8, packets, ctx.len());
    Some(())
}
