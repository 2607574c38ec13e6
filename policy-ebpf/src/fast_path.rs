//! The fast path: simple packets that an address allows, which are nearly all that a sandbox sends.
//!
//! `from_sandbox` judges all other packets, and would judge simple ones alike. The tests compare the
//! two.

use aya_ebpf::programs::TcContext;
use policy_common::{
    endpoint::{ENDPOINT_ACTIVE, ENDPOINT_MAC_KNOWN, ENDPOINT_REPORT_FLOWS, SandboxEndpoint},
    policy_table::{leaf_flags, leaf_reason_code},
    reason,
};

use crate::{
    checksum_offload,
    constant_length::length_as_u32,
    endpoint::{owns_ipv4, owns_ipv6},
    ip_header::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPPROTO_TCP},
    maps::SANDBOXES,
    packet_context::{self, skb_pointer},
    packet_counting,
    policy_lookup::{self, PolicyBlock, TEREDO_PREFIX},
    simple_frame::{IPV4_HEADER_LEN, IPV6_HEADER_LEN, SimpleFrame},
    transport::{TCP_CHECKSUM_OFFSET, UDP_CHECKSUM_OFFSET},
};

/// Counts and allows a packet if it is simple, and an address allows it.
#[inline(always)]
pub(crate) fn allow_simple_packet(ctx: &TcContext) -> Option<()> {
    // SAFETY: the context is valid while the program runs, and TC programs may read these fields.
    let (slot, has_vlan_tag) =
        unsafe { ((*skb_pointer(ctx)).cb[0], (*skb_pointer(ctx)).vlan_present != 0) };
    let sandbox = SANDBOXES.get(slot)?;
    let is_plain = sandbox.flags & (ENDPOINT_ACTIVE | ENDPOINT_REPORT_FLOWS) == ENDPOINT_ACTIVE;
    if !is_plain || has_vlan_tag {
        return None;
    }
    let (start, end) = (ctx.data(), ctx.data_end());
    let frame = SimpleFrame::<IPV4_HEADER_LEN>::new(start, end, ctx.len())?;
    if sandbox.flags & ENDPOINT_MAC_KNOWN != 0 && !frame.is_from(&sandbox.mac) {
        return None;
    }
    let (packets, are_too_small) = packet_context::count_segments(ctx);
    if are_too_small {
        return None;
    }
    let leaf = match frame.ethertype() {
        ETHERTYPE_IPV4 => find_leaf_v4(ctx, sandbox, frame)?,
        ETHERTYPE_IPV6 => find_leaf_v6(ctx, sandbox, SimpleFrame::new(start, end, ctx.len())?)?,
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
    const SOURCE: usize = 12;
    const DESTINATION: usize = 16;
    let protocol = frame.check_ipv4()?;
    let (source, destination) = (frame.ip_word(SOURCE), frame.ip_word(DESTINATION));
    if !owns_ipv4(sandbox, source) {
        return None;
    }
    let leaf = PolicyBlock::at(policy_lookup::policy_block_start(sandbox))?
        .find_v4::<false>(u32::from_be(destination));
    check_redirect(protocol, leaf)?;
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
    const SOURCE: usize = 8;
    const DESTINATION: usize = 24;
    let protocol = frame.check_ipv6()?;
    if !owns_ipv6(sandbox, frame.ip_address(SOURCE)) {
        return None;
    }
    let [a, b, c, d] = frame.ip_address(DESTINATION).map(u32::from_be);
    let (high, low) = (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d));
    if u64::from(a) == TEREDO_PREFIX {
        return None;
    }
    let leaf = PolicyBlock::at(policy_lookup::policy_block_start(sandbox))?.find_v6::<false>(high, low);
    check_redirect(protocol, leaf)?;
    frame.check_checksum(ctx, protocol)?;
    Some(leaf)
}

/// Checks that the egress proxy has no part in a packet with this leaf.
#[inline(always)]
fn check_redirect(protocol: u8, leaf: u32) -> Option<()> {
    (protocol != IPPROTO_TCP || leaf_flags(leaf) == 0).then_some(())
}

impl<const IP_HEADER_LEN: usize> SimpleFrame<IP_HEADER_LEN> {
    /// Checks that no checksum will be written over the headers.
    #[inline(always)]
    fn check_checksum(&self, ctx: &TcContext, protocol: u8) -> Option<()> {
        let field = if protocol == IPPROTO_TCP { TCP_CHECKSUM_OFFSET } else { UDP_CHECKSUM_OFFSET };
        let transport = const { length_as_u32(Self::TRANSPORT) };
        checksum_offload::is_checksum_at_or_after(ctx, transport + field).then_some(())
    }
}
