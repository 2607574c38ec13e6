//! How the kernel hands TCP connections of sandboxes to the egress proxy.
//!
//! `from_sandbox` assigns a packet to one of the proxy's sockets and marks it with [`REDIRECT_MARK`]; a
//! routing rule sends what is so marked to [`REDIRECT_ROUTE_TABLE`], whose only route delivers it locally. The
//! proxy's listener of a sandbox stands in [`PROXY_LISTENERS`](crate::bpf_names::PROXY_LISTENERS): no listener, no way out.

/// Mark of packets that are handed over. The routing rules match all 32 bits.
pub const REDIRECT_MARK: u32 = 0x7061_0001;
/// Mark of the proxy's listeners, and so of the connections that they accept: tells them from other
/// sockets of the host. No routing rule matches it.
pub const PROXY_SOCKET_MARK: u32 = 0x7061_0002;
/// The routing table that delivers locally.
pub const REDIRECT_ROUTE_TABLE: u32 = 0x7061;
/// Priority of the routing rules.
pub const REDIRECT_RULE_PRIORITY: u32 = 97;
/// Priority of the routing rules for the way back, which is asked for with the same mark.
pub const RETURN_RULE_PRIORITY: u32 = 96;

/// Key of a slot's listener for a family in [`PROXY_LISTENERS`](crate::bpf_names::PROXY_LISTENERS).
#[inline(always)]
#[must_use]
pub const fn listener_key(slot: u32, v6: bool) -> u32 {
    slot * 2 + v6 as u32
}
