//! What the kernel remembers between packets: inbound connections, first fragments, reported flows.

use crate::map_type;

/// Inbound connections remembered, over all sandboxes; the least recently used go first.
pub const MAX_INBOUND: usize = 131_072;
/// Fragmented datagrams under way, over all sandboxes.
pub const MAX_FRAGMENTS: usize = 8_192;
/// Datagram flows remembered as reported, over all sandboxes.
pub const MAX_FLOWS: usize = 16_384;

/// Key of [`INBOUND`](crate::name::INBOUND): a connection that was started towards a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct InboundKey {
    /// The sandbox: [`Sandbox::owner`](crate::sandbox::Sandbox::owner).
    pub owner: u32,
    /// Port that started the connection. ICMP echo: the identifier.
    pub remote_port: u16,
    /// The sandbox's port. ICMP echo: 0.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Address that started the connection.
    pub remote: [u8; 16],
    /// The sandbox's address.
    pub local: [u8; 16],
}

/// Key of [`FRAGMENTS`](crate::name::FRAGMENTS): one fragmented datagram from a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// The sandbox: [`Sandbox::owner`](crate::sandbox::Sandbox::owner).
    pub owner: u32,
    /// The identification field; 16 bits in IPv4, 32 in IPv6, as read from the wire.
    pub identification: u32,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Key of [`FLOWS`](crate::name::FLOWS): a datagram flow from a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// The sandbox: [`Sandbox::owner`](crate::sandbox::Sandbox::owner).
    pub owner: u32,
    /// Destination port, or 0.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
    /// Destination address.
    pub destination: [u8; 16],
}

map_type!(InboundKey, 44);
map_type!(FragmentKey, 44);
map_type!(FlowKey, 24);
