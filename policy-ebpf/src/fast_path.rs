//! The fast path: simple packets that an address allows, which are nearly all that a sandbox sends.
//!
//! A packet is simple if it is a whole IPv4 or IPv6 datagram without options or extension headers,
//! and a UDP datagram or a segment of a TCP connection that neither opens nor ends it. `from_sandbox`
//! judges all other packets, and would judge simple ones alike. The tests compare the two.

use aya_ebpf::programs::TcContext;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use policy_common::{
    endpoint::{ENDPOINT_ACTIVE, ENDPOINT_MAC_KNOWN, ENDPOINT_REPORT_FLOWS, SandboxEndpoint},
    policy_table::{leaf_flags, leaf_reason_code},
    reason,
};

use crate::{
    checksum_offload,
    constant_length::length_as_u32,
    endpoint::{owns_ipv4, owns_ipv6},
    ip_header::{
        AddressWords, ETHERNET_HEADER_LEN, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_TCP,
        IPPROTO_UDP, IPV4_FRAGMENT_OFFSET_MASK, IPV4_MORE_FRAGMENTS,
    },
    maps::SANDBOXES,
    packet_context::{self, skb_pointer},
    packet_counting,
    policy_lookup::{self, PolicyBlock, TEREDO_PREFIX},
    transport::{
        TCP_CHECKSUM_OFFSET, TCP_FIN, TCP_HEADER_MIN_LEN, TCP_RST, TCP_SYN, UDP_CHECKSUM_OFFSET,
        UDP_HEADER_LEN,
    },
};

const IPV4_HEADER_LEN: usize = Ipv4Hdr::LEN;
const IPV6_HEADER_LEN: usize = Ipv6Hdr::LEN;
/// Every simple packet has room for this transport header, the longer of the two.
const TRANSPORT_LEN: usize = TCP_HEADER_MIN_LEN;
/// The fields of a TCP or UDP header, by offset.
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const UDP_LENGTH: usize = 4;

/// A frame of which at least the headers of a simple packet are linear.
#[derive(Clone, Copy)]
struct SimpleFrame<const IP_HEADER_LEN: usize> {
    start: usize,
    frame_length: usize,
}

/// Counts and allows a packet if it is simple, and an address allows it.
#[inline(always)]
pub(crate) fn allow_simple_packet(ctx: &TcContext) -> Option<()> {
    // SAFETY: the context is valid while the program runs, and TC programs may read these fields.
    let (slot, has_vlan_tag) =
        unsafe { ((*skb_pointer(ctx)).cb[0], (*skb_pointer(ctx)).vlan_present != 0) };
    let sandbox = SANDBOXES.get(slot)?;
    let is_plain = sandbox.flags & (ENDPOINT_ACTIVE | ENDPOINT_REPORT_FLOWS) == ENDPOINT_ACTIVE;
    let (start, end) = (ctx.data(), ctx.data_end());
    if !is_plain
        || has_vlan_tag
        || start + ETHERNET_HEADER_LEN + IPV4_HEADER_LEN + TRANSPORT_LEN > end
    {
        return None;
    }
    let ethernet = SimpleFrame::<IPV4_HEADER_LEN> { start, frame_length: ctx.len() as usize };
    if sandbox.flags & ENDPOINT_MAC_KNOWN != 0 && !ethernet.is_from(&sandbox.mac) {
        return None;
    }
    let (packets, are_too_small) = packet_context::count_segments(ctx);
    if are_too_small {
        return None;
    }
    let leaf = match ethernet.ethertype() {
        ETHERTYPE_IPV4 => find_leaf_v4(ctx, sandbox, ethernet)?,
        ETHERTYPE_IPV6 => {
            if start + ETHERNET_HEADER_LEN + IPV6_HEADER_LEN + TRANSPORT_LEN > end {
                return None;
            }
            find_leaf_v6(ctx, sandbox, SimpleFrame { start, frame_length: ctx.len() as usize })?
        }
        _ => return None,
    };
    if !reason::code_passes(leaf_reason_code(leaf)) {
        return None;
    }
    packet_counting::count_frame(slot, leaf_reason_code(leaf), packets, ctx.len());
    Some(())
}

#[inline(always)]
fn find_leaf_v4(
    ctx: &TcContext,
    sandbox: &SandboxEndpoint,
    frame: SimpleFrame<IPV4_HEADER_LEN>,
) -> Option<u32> {
    /// Offsets in the header.
    const TOTAL_LENGTH: usize = 2;
    const FRAGMENT: usize = 6;
    const PROTOCOL: usize = 9;
    const SOURCE: usize = 12;
    const DESTINATION: usize = 16;
    const FRAGMENTED: u16 = IPV4_MORE_FRAGMENTS | IPV4_FRAGMENT_OFFSET_MASK;
    if frame.ip_byte(0) != 0x45 || frame.ip_u16(FRAGMENT) & FRAGMENTED != 0 {
        return None;
    }
    let protocol = frame.ip_byte(PROTOCOL);
    let length = usize::from(frame.ip_u16(TOTAL_LENGTH)).checked_sub(IPV4_HEADER_LEN)?;
    frame.check_transport(protocol, length)?;
    let (source, destination) = (frame.ip_word(SOURCE), frame.ip_word(DESTINATION));
    if !owns_ipv4(sandbox, source) {
        return None;
    }
    let leaf = PolicyBlock::at(policy_lookup::policy_block_start(sandbox))?
        .find_v4(u32::from_be(destination));
    frame.check_redirect(protocol, leaf)?;
    if checksum_offload::has_neutral_bytes(source, destination) {
        frame.check_checksum(ctx, protocol)?;
    }
    Some(leaf)
}

#[inline(always)]
fn find_leaf_v6(
    ctx: &TcContext,
    sandbox: &SandboxEndpoint,
    frame: SimpleFrame<IPV6_HEADER_LEN>,
) -> Option<u32> {
    /// Offsets in the header.
    const PAYLOAD_LENGTH: usize = 4;
    const NEXT_HEADER: usize = 6;
    const SOURCE: usize = 8;
    const DESTINATION: usize = 24;
    if frame.ip_byte(0) >> 4 != 6 {
        return None;
    }
    let protocol = frame.ip_byte(NEXT_HEADER);
    frame.check_transport(protocol, frame.ip_u16(PAYLOAD_LENGTH).into())?;
    if !owns_ipv6(sandbox, frame.ip_address(SOURCE)) {
        return None;
    }
    let [a, b, c, d] = frame.ip_address(DESTINATION).map(u32::from_be);
    let (high, low) = (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d));
    if u64::from(a) == TEREDO_PREFIX {
        return None;
    }
    let leaf = PolicyBlock::at(policy_lookup::policy_block_start(sandbox))?.find_v6(high, low);
    frame.check_redirect(protocol, leaf)?;
    frame.check_checksum(ctx, protocol)?;
    Some(leaf)
}

impl<const IP_HEADER_LEN: usize> SimpleFrame<IP_HEADER_LEN> {
    const TRANSPORT: usize = ETHERNET_HEADER_LEN + IP_HEADER_LEN;

    /// Checks the transport header, given the length of the datagram without its IP header.
    #[inline(always)]
    fn check_transport(&self, protocol: u8, length: usize) -> Option<()> {
        if Self::TRANSPORT + length > self.frame_length {
            return None;
        }
        match protocol {
            IPPROTO_TCP => {
                let header = usize::from(self.byte(Self::TRANSPORT + TCP_DATA_OFFSET) >> 4) * 4;
                let flags = self.byte(Self::TRANSPORT + TCP_FLAGS);
                let keeps_open = flags & (TCP_SYN | TCP_FIN | TCP_RST) == 0;
                (keeps_open && header >= TRANSPORT_LEN && header <= length).then_some(())
            }
            IPPROTO_UDP => {
                let datagram = usize::from(self.u16(Self::TRANSPORT + UDP_LENGTH));
                (datagram >= UDP_HEADER_LEN && datagram <= length).then_some(())
            }
            _ => None,
        }
    }

    /// Checks that the egress proxy has no part in a packet with this leaf.
    #[inline(always)]
    fn check_redirect(&self, protocol: u8, leaf: u32) -> Option<()> {
        (protocol != IPPROTO_TCP || leaf_flags(leaf) == 0).then_some(())
    }

    /// Checks that no checksum will be written over the headers.
    #[inline(always)]
    fn check_checksum(&self, ctx: &TcContext, protocol: u8) -> Option<()> {
        let field = if protocol == IPPROTO_TCP { TCP_CHECKSUM_OFFSET } else { UDP_CHECKSUM_OFFSET };
        let transport = const { length_as_u32(ETHERNET_HEADER_LEN + IP_HEADER_LEN) };
        checksum_offload::is_checksum_at_or_after(ctx, transport + field).then_some(())
    }

    #[inline(always)]
    fn is_from(&self, mac: &[u8; 6]) -> bool {
        let mac = core::ptr::from_ref(mac);
        // SAFETY: the field of the endpoint has 6 bytes and is aligned to 8.
        let (first, last) = unsafe { (mac.cast::<u32>().read(), mac.cast::<u16>().add(2).read()) };
        self.read::<u32>(6) == first && self.read::<u16>(10) == last
    }

    #[inline(always)]
    fn ethertype(&self) -> [u8; 2] {
        self.u16(12).to_be_bytes()
    }

    #[inline(always)]
    fn ip_byte(&self, offset: usize) -> u8 {
        self.byte(ETHERNET_HEADER_LEN + offset)
    }

    /// A field of 16 bits, in host byte order.
    #[inline(always)]
    fn ip_u16(&self, offset: usize) -> u16 {
        self.u16(ETHERNET_HEADER_LEN + offset)
    }

    /// A word, in network byte order.
    #[inline(always)]
    fn ip_word(&self, offset: usize) -> u32 {
        self.read(ETHERNET_HEADER_LEN + offset)
    }

    #[inline(always)]
    fn ip_address(&self, offset: usize) -> AddressWords {
        [0, 4, 8, 12].map(|word| self.ip_word(offset + word))
    }

    #[inline(always)]
    fn byte(&self, offset: usize) -> u8 {
        self.read(offset)
    }

    #[inline(always)]
    fn u16(&self, offset: usize) -> u16 {
        u16::from_be(self.read(offset))
    }

    /// Reads an integer at a constant offset within the headers.
    #[inline(always)]
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the bounds were checked when the frame was made, and every bit pattern is a valid
        // integer. Alignment: BPF loads need none on the architectures that the verifier accepts
        // this on, and loads that assume none would be single bytes.
        unsafe { core::ptr::read_volatile((self.start + offset) as *const T) }
    }
}
