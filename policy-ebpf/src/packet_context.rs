//! A packet's context in one form for both kinds of hooks, TC and XDP.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    programs::{TcContext, XdpContext},
};

use crate::{
    constant_length::length_as_u32,
    ip_header::{ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, has_simple_headers},
    maps::XDP_SLOT,
    packet_view::PacketView,
};

/// Maximum length of the headers (Ethernet, IP, TCP) of a packet without options or extension
/// headers.
const SIMPLE_HEADERS_LEN_V4: usize = 14 + 20 + 20;
const SIMPLE_HEADERS_LEN_V6: usize = 14 + 40 + 20;
/// Number of bytes to make linear if the headers are not simple.
const MAX_PULL_LEN: u32 = 512;
/// Minimum payload of the segments of a super-packet, in bytes. Linux never sends TCP segments of
/// less than 48, and those only to a peer that insists (`tcp_min_snd_mss`); QUIC sends 1 200.
/// Splitting 64 KiB into segments of one byte takes the kernel 45 ms.
const MIN_SEGMENT_LEN: u32 = 64;

/// One packet at one hook.
pub(crate) struct PacketContext {
    /// The sandbox's slot, set by the gate.
    pub slot: u32,
    /// The linear part of the frame.
    pub packet_view: PacketView,
    /// Length of the whole frame, including the Ethernet header.
    pub frame_length: u32,
    /// Number of packets it represents. More than one for a GSO super-packet.
    pub packet_count: u32,
    /// Whether it is a super-packet with segments so small that splitting it would be an attack.
    pub has_tiny_segments: bool,
    /// Whether the kernel has removed a VLAN tag from the frame.
    pub has_vlan_tag: bool,
    /// Index of the interface in its network namespace.
    pub ifindex: u32,
    /// The raw context, for helpers that both kinds of programs may call.
    pub raw_context: *mut c_void,
}

impl PacketContext {
    /// Creates the context at a TC hook, after the gate. Makes the headers linear first.
    #[inline(always)]
    pub(crate) fn from_tc(ctx: &TcContext) -> Self {
        pull_headers(ctx);
        let skb = skb_pointer(ctx);
        // SAFETY: the context outlives the program run, and these fields are readable at TC hooks.
        let (slot, vlan, interface) =
            unsafe { ((*skb).cb[0], (*skb).vlan_present != 0, (*skb).ifindex) };
        let packet = current_packet_view(ctx);
        let context = ctx.as_ptr();
        let (packet_count, has_tiny_segments) = count_segments(ctx);
        Self {
            slot,
            packet_view: packet,
            frame_length: ctx.len(),
            packet_count,
            has_tiny_segments,
            has_vlan_tag: vlan,
            ifindex: interface,
            raw_context: context,
        }
    }

    /// Creates the context at an XDP hook, after the gate.
    #[inline(always)]
    pub(crate) fn from_xdp(ctx: &XdpContext) -> Self {
        // Slot 0 is never assigned.
        let slot = XDP_SLOT.get(0).copied().unwrap_or(0);
        let packet = PacketView::new(ctx.data(), ctx.data_end());
        #[expect(clippy::cast_possible_truncation, reason = "an XDP frame is at most one page")]
        let length = packet.linear_len() as u32;
        #[expect(clippy::cast_possible_truncation, reason = "the field has 32 bits")]
        let interface = ctx.ingress_ifindex() as u32;
        let context = ctx.as_ptr();
        Self {
            slot,
            packet_view: packet,
            frame_length: length,
            packet_count: 1,
            has_tiny_segments: false,
            has_vlan_tag: false,
            ifindex: interface,
            raw_context: context,
        }
    }
}

/// The number of packets that a frame represents, and whether they are too small. A frame with
/// segments that are too small is dropped, and counts as one packet.
///
/// A guest's super-packet arrives without that number, because the kernel counts segments of virtio
/// frames only when it splits them (`virtio_net_hdr_to_skb`). The estimate then includes the headers
/// in the payload, which may count one packet too many.
#[inline(always)]
pub(crate) fn count_segments(ctx: &TcContext) -> (u32, bool) {
    let skb = skb_pointer(ctx);
    // SAFETY: as in `PacketContext::from_tc`.
    let (segments, size) = unsafe { ((*skb).gso_segs, (*skb).gso_size) };
    match (segments, size) {
        (_, 1..MIN_SEGMENT_LEN) => (1, true),
        (0, 0) => (1, false),
        (0, size) => (ctx.len().div_ceil(size), false),
        (segments, _) => (segments, false),
    }
}

/// The raw context of a TC program.
#[inline(always)]
pub(crate) fn skb_pointer(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// Whether the host itself sent this packet. Forwarded packets have an ingress interface.
#[inline(always)]
pub(crate) fn is_from_host(ctx: &TcContext) -> bool {
    // SAFETY: as in `PacketContext::from_tc`.
    unsafe { (*skb_pointer(ctx)).ingress_ifindex == 0 }
}

/// The view of the packet after it may have moved. The pointers are always read again. Otherwise
/// the verifier would track packets that were long enough separately from those that were pulled.
#[inline(always)]
pub(crate) fn current_packet_view(ctx: &TcContext) -> PacketView {
    let skb = skb_pointer(ctx);
    // SAFETY: the context is valid while the program runs.
    let (start, end) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*skb).data),
            core::ptr::read_volatile(&raw const (*skb).data_end),
        )
    };
    PacketView::new(start as usize, end as usize)
}

/// Makes the headers linear. A sandbox with virtio chooses how much of a frame is linear, which may
/// be only the Ethernet header. Reads fail for headers that cannot be pulled.
#[inline(always)]
fn pull_headers(ctx: &TcContext) {
    let packet = PacketView::new(ctx.data(), ctx.data_end());
    let wanted = match packet.read_at::<[u8; 2]>(12) {
        Some(&ETHERTYPE_IPV4) => SIMPLE_HEADERS_LEN_V4,
        Some(&ETHERTYPE_IPV6) => SIMPLE_HEADERS_LEN_V6,
        _ => MAX_PULL_LEN as usize,
    };
    let simple = packet.linear_len() >= wanted && has_simple_headers(&packet);
    if simple || packet.linear_len() >= (ctx.len().min(MAX_PULL_LEN)) as usize {
        return;
    }
    // Errors need no handling: reads of missing bytes fail.
    let _ = ctx
        .pull_data(ctx.len().min(MAX_PULL_LEN).max(const { length_as_u32(ETHERNET_HEADER_LEN) }));
}
