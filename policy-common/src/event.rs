//! The record of a verdict that the kernel reports: every denial, and new flows on request.

use crate::impl_pod;

/// Bytes of the ring buffer.
pub const EVENT_RING_BYTES: usize = 4 * 1024 * 1024;

/// A record of [`EVENTS`](crate::bpf_names::LIMITS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VerdictEvent {
    /// Nanoseconds since boot, suspended time excluded (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Slot of the sandbox.
    pub slot: u32,
    /// Index of the deciding rule, or [`NO_RULE`](crate::verdict::NO_RULE).
    pub rule_index: u32,
    /// Bytes of the frame, Ethernet header included.
    pub frame_length: u32,
    /// The compiled policy that `rule` belongs to.
    pub policy_id: u16,
    /// EtherType.
    pub ethertype: u16,
    /// Source port; ICMP: the type. 0 where there is none.
    pub source_port: u16,
    /// Destination port; ICMP: the code. 0 where there is none.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Code of the [`Reason`](crate::reason::Reason).
    pub reason_code: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// Source address; zero where the frame has none.
    pub source_address: [u8; 16],
    /// Destination address; zero where the frame has none.
    pub destination_address: [u8; 16],
}

impl_pod!(VerdictEvent, 64);
