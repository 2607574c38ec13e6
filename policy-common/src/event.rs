//! The event that the kernel programs report: every denial and, on request, new flows.

use crate::impl_pod;

/// Size of the ring buffer in bytes.
pub const EVENT_RING_BYTES: usize = 8 * 1024 * 1024;
/// While more than this is unread, the rest is shared out to the sandboxes by
/// [`RESERVED_EVENT_RATE_LIMIT`](crate::rate_limit::RESERVED_EVENT_RATE_LIMIT).
pub const EVENT_RING_SHARED_BYTES: usize = EVENT_RING_BYTES / 2;

/// A record of [`EVENTS`](crate::bpf_names::EVENTS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct VerdictEvent {
    /// Nanoseconds since boot, excluding time in suspend (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Slot of the sandbox.
    pub slot: u32,
    /// Index of the deciding rule, or [`NO_RULE`](crate::verdict::NO_RULE).
    pub rule_index: u32,
    /// Length of the frame in bytes, including the Ethernet header.
    pub frame_length: u32,
    /// The compiled policy that `rule_index` refers to.
    pub policy_id: u16,
    /// EtherType.
    pub ethertype: u16,
    /// Source port, or ICMP type. 0 if there is none.
    pub source_port: u16,
    /// Destination port, or ICMP code. 0 if there is none.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Code of the [`Reason`](crate::reason::Reason).
    pub reason_code: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// Source address. Zero if the frame has none.
    pub source_address: [u8; 16],
    /// Destination address. Zero if the frame has none.
    pub destination_address: [u8; 16],
}

impl_pod!(VerdictEvent, 64);
