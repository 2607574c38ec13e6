//! The identity of a sandbox: what the kernel knows about the interface a packet came from.

use crate::impl_pod;

/// Slots for sandboxes. Slot 0 is never used.
pub const MAX_SANDBOXES: u32 = 4096;
/// Addresses of one family that a sandbox may have.
pub const MAX_ADDRESSES_PER_FAMILY: usize = 4;

/// The sandbox is known: without this flag everything is dropped ([`NoPolicy`]).
///
/// [`NoPolicy`]: crate::reason::Reason::NoPolicy
pub const ENDPOINT_ACTIVE: u32 = 1 << 0;
/// `deny_action = "reject"`: answer denied packets.
pub const ENDPOINT_REJECT_DENIED: u32 = 1 << 1;
/// `inbound = "host"`: only the host's own connections are let in.
pub const ENDPOINT_INBOUND_FROM_HOST: u32 = 1 << 2;
/// [`SandboxEndpoint::mac`] is set and frames must come from it.
pub const ENDPOINT_MAC_KNOWN: u32 = 1 << 3;
/// Somebody follows all events: report new flows that pass, too.
pub const ENDPOINT_REPORT_FLOWS: u32 = 1 << 4;

/// Value of [`SANDBOXES`](crate::bpf_names::SANDBOXES), by slot.
///
/// Except for `flags`, a slot's entry does not change while an interface uses the slot: a sandbox
/// whose addresses change moves to a fresh slot, so no packet ever sees half an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct SandboxEndpoint {
    /// [`ENDPOINT_ACTIVE`] and the others.
    pub flags: u32,
    /// Names this use of the slot in what the kernel remembers between packets, so that the next
    /// sandbox in the slot inherits nothing.
    pub instance_id: u32,
    /// The sandbox's MAC address, if [`ENDPOINT_MAC_KNOWN`].
    pub mac: [u8; 6],
    /// Zero.
    pub padding: [u8; 2],
    /// Its IPv4 addresses, network byte order; unused ones are zero.
    pub ipv4_addresses: [[u8; 4]; MAX_ADDRESSES_PER_FAMILY],
    /// Its IPv6 addresses; unused ones are zero.
    pub ipv6_addresses: [[u8; 16]; MAX_ADDRESSES_PER_FAMILY],
}

impl_pod!(SandboxEndpoint, 96);
