//! What the two kinds of hook, TC and XDP, tell about a packet, brought into one form.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::__sk_buff,
    programs::{TcContext, XdpContext},
};

use crate::{
    header::{ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Header, NO_HEADER, is_simple},
    maps::XDP_SLOT,
    packet::Packet,
    transport::{NONE, Transport},
};

/// Bytes that hold every header of a packet with a simple chain: Ethernet, IP, TCP.
const SIMPLE_V4: usize = 14 + 20 + 20;
const SIMPLE_V6: usize = 14 + 40 + 20;
/// Bytes that are made linear when the headers are not simple.
const DEEP: u32 = 512;

/// What has been read of a packet, for the judgement and for the report.
pub struct Seen {
    pub ethertype: [u8; 2],
    pub header: Header,
    pub transport: Transport,
}

impl Seen {
    /// Nothing yet.
    pub const NOTHING: Self = Self { ethertype: [0; 2], header: NO_HEADER, transport: NONE };
}

/// One packet at one hook.
pub struct Hook {
    /// The sandbox's slot, as its gate named it.
    pub slot: u32,
    /// The bytes of the frame, linear part.
    pub packet: Packet,
    /// Length of the whole frame, Ethernet header included.
    pub length: u32,
    /// Packets it stands for: a GSO super-packet is many.
    pub packets: u32,
    /// Whether a VLAN tag was taken off the frame.
    pub vlan: bool,
    /// Index of the interface, in its network namespace.
    pub interface: u32,
    /// The context itself, for helpers that both kinds of program have.
    pub context: *mut c_void,
}

impl Hook {
    /// At a TC hook, behind a gate. Makes the headers linear first.
    #[inline(always)]
    pub fn of_tc(ctx: &TcContext) -> Self {
        linearize(ctx);
        let skb = skb(ctx);
        // SAFETY: the context outlives the program's run; these fields can be read at TC hooks.
        let (slot, vlan, interface) =
            unsafe { ((*skb).cb[0], (*skb).vlan_present != 0, (*skb).ifindex) };
        let packet = view(ctx);
        let context = ctx.as_ptr();
        Self { slot, packet, length: ctx.len(), packets: packets(ctx), vlan, interface, context }
    }

    /// At an XDP hook, behind a gate.
    #[inline(always)]
    pub fn of_xdp(ctx: &XdpContext) -> Self {
        // Slot 0 belongs to nobody.
        let slot = XDP_SLOT.get(0).copied().unwrap_or(0);
        let packet = Packet::new(ctx.data(), ctx.data_end());
        #[expect(clippy::cast_possible_truncation, reason = "an XDP frame is at most one page")]
        let length = packet.linear() as u32;
        #[expect(clippy::cast_possible_truncation, reason = "the field has 32 bits")]
        let interface = ctx.ingress_ifindex() as u32;
        let context = ctx.as_ptr();
        Self { slot, packet, length, packets: 1, vlan: false, interface, context }
    }
}

/// How many packets a frame stands for. A guest's super-packet comes without that number: the
/// kernel counts what virtio hands over when it cuts it up (`virtio_net_hdr_to_skb`). The headers
/// are taken for data then, which may count one too many.
#[inline(always)]
fn packets(ctx: &TcContext) -> u32 {
    let skb = skb(ctx);
    // SAFETY: as in `Hook::of_tc`.
    let (segments, size) = unsafe { ((*skb).gso_segs, (*skb).gso_size) };
    match (segments, size) {
        (0, 0) => 1,
        (0, size) => ctx.len().div_ceil(size),
        (segments, _) => segments,
    }
}

/// The raw context of a TC program.
#[inline(always)]
pub fn skb(ctx: &TcContext) -> *mut __sk_buff {
    ctx.as_ptr().cast()
}

/// Whether the host itself made this packet: what it forwards came in at some interface.
#[inline(always)]
pub fn is_from_host(ctx: &TcContext) -> bool {
    // SAFETY: as in `Hook::of_tc`.
    unsafe { (*skb(ctx)).ingress_ifindex == 0 }
}

/// The view over the packet after it may have moved. Read anew in any case: what the verifier knows
/// of a packet that was long enough would make it judge that one apart from one that was pulled.
#[inline(always)]
pub fn view(ctx: &TcContext) -> Packet {
    let skb = skb(ctx);
    // SAFETY: the context is valid while the program runs.
    let (start, end) = unsafe {
        (
            core::ptr::read_volatile(&raw const (*skb).data),
            core::ptr::read_volatile(&raw const (*skb).data_end),
        )
    };
    Packet::new(start as usize, end as usize)
}

/// Brings the headers into the linear part. A sandbox with virtio chooses how much of a frame is
/// linear: only the Ethernet header need be. What cannot be pulled is found missing by the reads.
#[inline(always)]
fn linearize(ctx: &TcContext) {
    let packet = Packet::new(ctx.data(), ctx.data_end());
    let wanted = match packet.read::<[u8; 2]>(12) {
        Some(&ETHERTYPE_IPV4) => SIMPLE_V4,
        Some(&ETHERTYPE_IPV6) => SIMPLE_V6,
        _ => DEEP as usize,
    };
    let simple = packet.linear() >= wanted && is_simple(&packet);
    if simple || packet.linear() >= (ctx.len().min(DEEP)) as usize {
        return;
    }
    // Nothing to do about an error: the reads will find what is missing.
    let _ = ctx.pull_data(ctx.len().min(DEEP).max(ETHERNET as u32));
}
