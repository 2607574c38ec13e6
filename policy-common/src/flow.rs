//! State that the kernel programs keep between packets: inbound connections, first fragments and
//! reported flows.

use crate::impl_pod;

/// Maximum number of inbound connections in all sandboxes. The least recently used are evicted.
pub const MAX_INBOUND_CONNECTIONS: usize = 131_072;
/// Maximum number of fragmented datagrams in transit in all sandboxes.
pub const MAX_FRAGMENTED_DATAGRAMS: usize = 8_192;
/// Maximum number of datagram flows stored as reported in all sandboxes.
pub const MAX_REPORTED_FLOWS: usize = 16_384;

/// Key of [`INBOUND`](crate::bpf_names::INBOUND): a connection that was opened to a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct InboundConnectionKey {
    /// The sandbox:
    /// [`SandboxEndpoint::instance_id`](crate::endpoint::SandboxEndpoint::instance_id).
    pub instance_id: u32,
    /// The initiator's port. ICMP echo: the identifier.
    pub remote_port: u16,
    /// The sandbox's port. ICMP echo: 0.
    pub local_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub padding: [u8; 3],
    /// The initiator's address.
    pub remote_address: [u8; 16],
    /// The sandbox's address.
    pub local_address: [u8; 16],
}

/// Key of [`FRAGMENTS`](crate::bpf_names::FRAGMENTS): one fragmented datagram from a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentedDatagramKey {
    /// The sandbox:
    /// [`SandboxEndpoint::instance_id`](crate::endpoint::SandboxEndpoint::instance_id).
    pub instance_id: u32,
    /// The identification field as on the wire: 16 bits in IPv4, 32 in IPv6.
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
    /// The sandbox:
    /// [`SandboxEndpoint::instance_id`](crate::endpoint::SandboxEndpoint::instance_id).
    pub instance_id: u32,
    /// Destination port. 0 if there is none.
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
