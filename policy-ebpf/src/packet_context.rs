//! What the two kinds of hook, TC and XDP, tell about a packet, brought into one form.

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

/// Bytes that hold every header of a packet with a simple chain: Ethernet, IP, TCP.
const SIMPLE_HEADERS_LEN_V4: usize = 14 + 20 + 20;
const SIMPLE_HEADERS_LEN_V6: usize = 14 + 40 + 20;
/// Bytes that are made linear when the headers are not simple.
const MAX_PULL_LEN: u32 = 512;

/// One packet at one hook.
pub(crate) struct PacketContext {
    /// The sandbox's slot, as its gate named it.
    pub slot: u32,
    /// The bytes of the frame, linear part.
    pub packet_view: PacketView,
    /// Length of the whole frame, Ethernet header included.
    pub frame_length: u32,
    /// Packets it stands for: a GSO super-packet is many.
    pub packet_count: u32,
    /// Whether a VLAN tag was taken off the frame.
    pub has_vlan_tag: bool,
    /// Index of the interface, in its network namespace.
    pub ifindex: u32,
    /// The context itself, for helpers that both kinds of program have.
    pub raw_context: *mut c_void,
}

impl PacketContext {
    /// At a TC hook, behind a gate. Makes the headers linear first.
    #[inline(always)]
    pub(crate) fn from_tc(ctx: &TcContext) -> Self {
        pull_headers(ctx);
        let skb = skb_pointer(ctx);
        // SAFETY: the context outlives the program's run; these fields can be read at TC hooks.
        let (slot, vlan, interface) =
            unsafe { ((*skb).cb[0], (*skb).vlan_present != 0, (*skb).ifindex) };
        let packet = current_packet_view(ctx);
        let context = ctx.as_ptr();
        Self {
            slot,
            packet_view: packet,
            frame_length: ctx.len(),
            packet_count: packet_count(ctx),
            has_vlan_tag: vlan,
            ifindex: interface,
            raw_context: context,
        }
    }

    /// At an XDP hook, behind a gate.
    #[inline(always)]
    pub(crate) fn from_xdp(ctx: &XdpContext) -> Self {
        // Slot 0 belongs to nobody.
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
            has_vlan_tag: false,
            ifindex: interface,
            raw_context: context,
        }
    }
}

/// How many packets a frame stands for. A guest's super-packet comes without that number: the
/// kernel counts what virtio hands over when it cuts it up (`virtio_net_hdr_to_skb`). The headers
/// are taken for data then, which may count one too many.
#[inline(always)]
fn packet_count(ctx: &TcContext) -> u32 {
    let skb = skb_pointer(ctx);
    // SAFETY: as in `PacketContext::from_tc`.
    let (segments, size) = unsafe { ((*skb).gso_segs, (*skb).gso_size) };
    match (segments, size) {
        (0, 0) => 1,
        (0, size) => ctx.len().div_ceil(size),
        (segments, _) => segments,
    }
}

/// The raw context of a TC program.
#[inline(always)]
pub(crate) fn skb_pointer(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// Whether the host itself made this packet: what it forwards came in at some interface.
#[inline(always)]
pub(crate) fn is_from_host(ctx: &TcContext) -> bool {
    // SAFETY: as in `PacketContext::from_tc`.
    unsafe { (*skb_pointer(ctx)).ingress_ifindex == 0 }
}

/// The view over the packet after it may have moved. Read anew in any case: what the verifier knows
/// of a packet that was long enough would make it judge that one apart from one that was pulled.
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

/// Brings the headers into the linear part. A sandbox with virtio chooses how much of a frame is
/// linear: only the Ethernet header need be. What cannot be pulled is found missing by the reads.
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
    // Nothing to do about an error: the reads will find what is missing.
    let _ = ctx
        .pull_data(ctx.len().min(MAX_PULL_LEN).max(const { length_as_u32(ETHERNET_HEADER_LEN) }));
}
