//! What the kernel remembers between packets: inbound connections, first fragments, reported flows.

use crate::impl_pod;

/// Inbound connections remembered, over all sandboxes; the least recently used go first.
pub const MAX_INBOUND_CONNECTIONS: usize = 131_072;
/// Fragmented datagrams under way, over all sandboxes.
pub const MAX_FRAGMENTED_DATAGRAMS: usize = 8_192;
/// Datagram flows remembered as reported, over all sandboxes.
pub const MAX_REPORTED_FLOWS: usize = 16_384;

/// Key of [`INBOUND`](crate::bpf_names::INBOUND): a connection that was started towards a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct InboundConnectionKey {
    /// The sandbox: [`Sandbox::owner`](crate::endpoint::SandboxEndpoint::instance_id).
    pub instance_id: u32,
    /// Port that started the connection. ICMP echo: the identifier.
    pub remote_port: u16,
    /// The sandbox's port. ICMP echo: 0.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// Address that started the connection.
    pub remote_address: [u8; 16],
    /// The sandbox's address.
    pub local_address: [u8; 16],
}

/// Key of [`FRAGMENTS`](crate::bpf_names::FRAGMENTS): one fragmented datagram from a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentedDatagramKey {
    /// The sandbox: [`Sandbox::owner`](crate::endpoint::SandboxEndpoint::instance_id).
    pub instance_id: u32,
    /// The identification field; 16 bits in IPv4, 32 in IPv6, as read from the wire.
    pub identification: u32,
    /// Source address.
    pub source_address: [u8; 16],
    /// Destination address.
    pub destination_address: [u8; 16],
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
}

/// Key of [`FLOWS`](crate::bpf_names::FLOWS): a datagram flow from a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct ReportedFlowKey {
    /// The sandbox: [`Sandbox::owner`](crate::endpoint::SandboxEndpoint::instance_id).
    pub instance_id: u32,
    /// Destination port, or 0.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: u8,
    /// Destination address.
    pub destination_address: [u8; 16],
}

impl_pod!(InboundConnectionKey, 44);
impl_pod!(FragmentedDatagramKey, 44);
impl_pod!(ReportedFlowKey, 24);
