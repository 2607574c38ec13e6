//! The identity of a sandbox: what the kernel programs know about the owner of an interface.

use crate::impl_pod;

/// Number of slots, including slot 0, which is never used.
pub const MAX_SANDBOXES: u32 = 4096;
/// Maximum number of addresses of one family per sandbox.
pub const MAX_ADDRESSES_PER_FAMILY: usize = 4;

/// The slot is in use. Without this flag every packet is dropped ([`NoPolicy`]).
///
/// [`NoPolicy`]: crate::reason::Reason::NoPolicy
pub const ENDPOINT_ACTIVE: u32 = 1 << 0;
/// `deny_action = "reject"`: reply to denied packets.
pub const ENDPOINT_REJECT_DENIED: u32 = 1 << 1;
/// `inbound = "host"`: only the host itself may open connections to the sandbox.
pub const ENDPOINT_INBOUND_FROM_HOST: u32 = 1 << 2;
/// [`SandboxEndpoint::mac`] is set, and frames must have it as their source.
pub const ENDPOINT_MAC_KNOWN: u32 = 1 << 3;
/// Report new flows that pass, not only denials.
pub const ENDPOINT_REPORT_FLOWS: u32 = 1 << 4;
/// The sandbox is observed, so its new flows are always reported. Only the agent reads it: it has
/// [`ENDPOINT_REPORT_FLOWS`] too.
pub const ENDPOINT_OBSERVED: u32 = 1 << 5;

/// Value of [`SANDBOXES`](crate::bpf_names::SANDBOXES), by slot.
///
/// Except for `flags`, `policy_block` and `has_no_inbound_*`, an entry does not change while an
/// interface uses the slot. A sandbox whose addresses change moves to a new slot, so no packet is
/// judged by a partial update. The agent maps the array and stores each of the first two at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SandboxEndpoint {
    /// [`ENDPOINT_ACTIVE`] and the others.
    pub flags: u32,
    /// Index of the policy's block in [`POLICY_TABLES`](crate::bpf_names::POLICY_TABLES). 0: no
    /// policy, so every packet is denied.
    pub policy_block: u32,
    /// The sandbox's MAC address, if [`ENDPOINT_MAC_KNOWN`]. Aligned to 8 bytes.
    pub mac: [u8; 6],
    /// Zero.
    pub mac_padding: [u8; 2],
    /// Its IPv4 addresses in network byte order. Unused elements are zero.
    pub ipv4_addresses: [u32; MAX_ADDRESSES_PER_FAMILY],
    /// Its IPv6 addresses in network byte order. Unused elements are zero.
    pub ipv6_addresses: [[u32; 4]; MAX_ADDRESSES_PER_FAMILY],
    /// The key of its [fingerprints](crate::flow_fingerprint), random for each use of the slot.
    pub flow_key: [u64; 2],
    /// 1 until a TCP connection is opened to the sandbox, which the programs note. Before that,
    /// nothing that the sandbox sends over TCP is a reply. 0 if unknown.
    pub has_no_inbound_tcp: u32,
    /// The same for the exchanges of datagrams that the host begins.
    pub has_no_inbound_datagrams: u32,
    /// Zero. Every entry has two cache lines of its own.
    pub reserved: [u8; 8],
}

impl_pod!(SandboxEndpoint, 128);
