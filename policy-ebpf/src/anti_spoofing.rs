//! Line 1: a sandbox may only send from its own MAC and IP addresses.

use policy_common::{
    endpoint::{ENDPOINT_MAC_KNOWN, SandboxEndpoint},
    reason::Reason,
};

use crate::{
    endpoint::{owns_ipv4, owns_ipv6, same_mac},
    ip_header::IpHeader,
    packet_context::PacketContext,
};

/// Returns the source MAC of the frame. It must be the sandbox's, if that is known.
#[inline(always)]
pub(crate) fn check_source_mac(
    hook: &PacketContext,
    sandbox: &SandboxEndpoint,
) -> Result<[u8; 6], Reason> {
    let source = *hook.packet_view.read_at::<[u8; 6]>(6).ok_or(Reason::Malformed)?;
    if sandbox.flags & ENDPOINT_MAC_KNOWN != 0 && !same_mac(source, sandbox.mac) {
        return Err(Reason::SpoofedMac);
    }
    Ok(source)
}

/// Checks that the source address belongs to the sandbox.
#[inline(always)]
pub(crate) fn check_source_address(
    header: &IpHeader,
    sandbox: &SandboxEndpoint,
) -> Result<(), Reason> {
    let own = if header.is_v6 {
        owns_ipv6(sandbox, header.source)
    } else {
        owns_ipv4(sandbox, header.source[3])
    };
    if own { Ok(()) } else { Err(Reason::SpoofedIp) }
}
