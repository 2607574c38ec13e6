//! The fast path: simple packets that an address allows, which are nearly all that a sandbox sends,
//! and those that it denies without an event or an answer, which are nearly all of a flood.
//!
//! `from_sandbox` judges all other packets, and would judge simple ones alike. The tests compare the
//! two.

use aya_ebpf::programs::TcContext;
use policy_common::{
    endpoint::{
        ENDPOINT_ACTIVE, ENDPOINT_MAC_KNOWN, ENDPOINT_REJECT_DENIED, ENDPOINT_REPORT_FLOWS,
        SandboxEndpoint,
    },
    policy_table::{leaf_flags, leaf_reason_code},
    reason::{self, Reason},
};

use crate::{
    checksum_offload,
    constant_length::length_as_u32,
    endpoint::{self, owns_ipv4, owns_ipv6},
    event_limits,
    ip_header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_TCP},
    maps::SANDBOXES,
    packet_context::{self, skb_pointer},
    packet_counting,
    policy_lookup::{self, PolicyBlock, TEREDO_PREFIX},
    simple_frame::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, SimpleFrame, SimpleTransport},
    transport::{TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
};

/// The verdict about a simple packet, which is counted.
pub(crate) enum SimpleVerdict {
    Allow,
    Drop,
}

/// What the verdict about a simple packet follows from.
struct SimplePacket {
    leaf: u32,
    transport: SimpleTransport,
    /// The destination is a multicast group.
    is_to_group: bool,
    /// Offset in the frame before which no checksum may be written. 0 if there is no such bound.
    first_checksum: u32,
}

const PLATFORM_DENY: u8 = Reason::PlatformDeny as u8;
const DENY_OUT: u8 = Reason::DenyOut as u8;

/// Judges and counts a packet if it is simple.
#[inline(always)]
pub(crate) fn judge_simple_packet(ctx: &TcContext) -> Option<SimpleVerdict> {
    // SAFETY: the context is valid while the program runs, and TC programs may read these fields.
    let (slot, has_vlan_tag) =
        unsafe { ((*skb_pointer(ctx)).cb[0], (*skb_pointer(ctx)).vlan_present != 0) };
    let sandbox = SANDBOXES.get(slot)?;
    let is_plain = sandbox.flags & (ENDPOINT_ACTIVE | ENDPOINT_REPORT_FLOWS) == ENDPOINT_ACTIVE;
    if !is_plain || has_vlan_tag {
        return None;
    }
    let (packets, are_too_small) = packet_context::count_segments(ctx);
    if are_too_small {
        return None;
    }
    let packet = SimplePacket::look_up(ctx, sandbox)?;
    let reason_code = leaf_reason_code(packet.leaf);
    let verdict = match reason_code {
        PLATFORM_DENY | DENY_OUT => packet.drop_silently(sandbox, slot)?,
        code if reason::code_passes(code) => packet.allow(ctx)?,
        _ => return None,
    };
    packet_counting::count_frame(slot, reason_code, packets, ctx.len());
    Some(verdict)
}

impl SimplePacket {
    #[inline(always)]
    fn look_up(ctx: &TcContext, sandbox: &SandboxEndpoint) -> Option<Self> {
        let (start, end) = (ctx.data(), ctx.data_end());
        let frame = SimpleFrame::<IPV4_HEADER_LEN>::new(start, end, ctx.len())?;
        if sandbox.flags & ENDPOINT_MAC_KNOWN != 0 && !frame.is_from(&sandbox.mac) {
            return None;
        }
        let packet = match frame.ethertype() {
            ETHERTYPE_IPV4 => Self::look_up_v4(sandbox, frame)?,
            ETHERTYPE_IPV6 => Self::look_up_v6(sandbox, SimpleFrame::new(start, end, ctx.len())?)?,
            _ => return None,
        };
        // The egress proxy has a part in TCP with flags.
        let is_judged = packet.transport.protocol != IPPROTO_TCP || leaf_flags(packet.leaf) == 0;
        is_judged.then_some(packet)
    }

    #[inline(always)]
    fn look_up_v4(sandbox: &SandboxEndpoint, frame: SimpleFrame<IPV4_HEADER_LEN>) -> Option<Self> {
        /// Offsets in the header.
        const SOURCE: usize = 12;
        const DESTINATION: usize = 16;
        /// The first multicast address. Later ones are no unicast addresses either.
        const FIRST_GROUP: u32 = 0xe000_0000;
        let transport = frame.check_ipv4()?;
        let (source, destination) = (frame.ip_word(SOURCE), frame.ip_word(DESTINATION));
        if !owns_ipv4(sandbox, source) {
            return None;
        }
        let address = u32::from_be(destination);
        let block = PolicyBlock::at(policy_lookup::policy_block_start(sandbox))?;
        let is_unprotected = checksum_offload::has_neutral_bytes(source, destination);
        Some(Self {
            leaf: block.find_v4::<false>(address),
            transport,
            is_to_group: address >= FIRST_GROUP,
            first_checksum: if is_unprotected { frame.checksum_offset(transport) } else { 0 },
        })
    }

    #[inline(always)]
    fn look_up_v6(sandbox: &SandboxEndpoint, frame: SimpleFrame<IPV6_HEADER_LEN>) -> Option<Self> {
        /// Offsets in the header.
        const SOURCE: usize = 8;
        const DESTINATION: usize = 24;
        let transport = frame.check_ipv6()?;
        if !owns_ipv6(sandbox, frame.ip_address(SOURCE)) {
            return None;
        }
        let [a, b, c, d] = frame.ip_address(DESTINATION).map(u32::from_be);
        let (high, low) = (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d));
        if u64::from(a) == TEREDO_PREFIX {
            return None;
        }
        let block = PolicyBlock::at(policy_lookup::policy_block_start(sandbox))?;
        Some(Self {
            leaf: block.find_v6::<false>(high, low),
            transport,
            is_to_group: a >> 24 == 0xff,
            first_checksum: frame.checksum_offset(transport),
        })
    }

    /// Allows the packet if it does not change the state of a connection, and no checksum will be
    /// written over its headers.
    #[inline(always)]
    fn allow(&self, ctx: &TcContext) -> Option<SimpleVerdict> {
        let is_harmless = self.first_checksum == 0
            || checksum_offload::is_simple_checksum_at_or_after(ctx, self.first_checksum);
        (is_harmless && self.transport.keeps_connection()).then_some(SimpleVerdict::Allow)
    }

    /// Drops the packet if it cannot be a reply or background traffic, and the sandbox has used up
    /// its events and answers for the moment.
    #[inline(always)]
    fn drop_silently(&self, sandbox: &SandboxEndpoint, slot: u32) -> Option<SimpleVerdict> {
        let may_be_reply = match self.transport.protocol {
            IPPROTO_TCP => !self.transport.opens_connection() && endpoint::has_inbound_tcp(sandbox),
            _ => endpoint::has_inbound_datagrams(sandbox),
        };
        let is_answered = sandbox.flags & ENDPOINT_REJECT_DENIED != 0;
        let is_silent = !may_be_reply
            && !self.is_to_group
            && event_limits::suppress_event_and_reply(slot, is_answered);
        is_silent.then_some(SimpleVerdict::Drop)
    }
}

impl<const IP_HEADER_LEN: usize> SimpleFrame<IP_HEADER_LEN> {
    /// Offset of the checksum in the frame.
    #[inline(always)]
    fn checksum_offset(&self, transport: SimpleTransport) -> u32 {
        let field = match transport.protocol {
            IPPROTO_TCP => TCP_CHECKSUM_OFFSET,
            _ => UDP_CHECKSUM_OFFSET,
        };
        field + const { length_as_u32(Self::TRANSPORT) }
    }
}
