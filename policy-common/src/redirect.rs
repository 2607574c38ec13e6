//! How the kernel programs redirect TCP connections of sandboxes to the egress proxy.
//!
//! `proxy_redirect` assigns a packet to one of the proxy's sockets and marks it with
//! [`REDIRECT_MARK`]. A routing rule looks up packets with this mark in [`REDIRECT_ROUTE_TABLE`],
//! whose only route delivers them locally. [`PROXY_LISTENERS`](crate::bpf_names::PROXY_LISTENERS)
//! contains the proxy's listeners by sandbox. Without a listener the packet is dropped.

/// Mark of redirected packets. The routing rules match all 32 bits.
pub const REDIRECT_MARK: u32 = 0x7061_0001;
/// Mark of the proxy's listeners, which accepted connections inherit. It distinguishes them from
/// other sockets of the host. No routing rule matches it.
pub const PROXY_SOCKET_MARK: u32 = 0x7061_0002;
/// The routing table that delivers redirected packets locally.
pub const REDIRECT_ROUTE_TABLE: u32 = 0x7061;
/// Priority of the routing rules.
pub const REDIRECT_RULE_PRIORITY: u32 = 97;
/// Priority of the routing rules for the return path, which the kernel looks up with the same mark.
pub const RETURN_RULE_PRIORITY: u32 = 96;

/// Key of a slot's listener for one family in
/// [`PROXY_LISTENERS`](crate::bpf_names::PROXY_LISTENERS).
#[inline(always)]
#[must_use]
pub const fn listener_key(slot: u32, v6: bool) -> u32 {
    slot * 2 + v6 as u32
}
