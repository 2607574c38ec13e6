//! The record of a verdict that the kernel reports: every denial, and new flows on request.

use crate::map_type;

/// Bytes of the ring buffer.
pub const RING_BYTES: usize = 4 * 1024 * 1024;

/// A record of [`EVENTS`](crate::name::EVENTS).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Nanoseconds since boot, suspended time excluded (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Slot of the sandbox.
    pub slot: u32,
    /// Index of the deciding rule, or [`NO_RULE`](crate::policy::NO_RULE).
    pub rule: u32,
    /// Bytes of the frame, Ethernet header included.
    pub length: u32,
    /// The compiled policy that `rule` belongs to.
    pub policy: u16,
    /// EtherType.
    pub ethertype: u16,
    /// Source port; ICMP: the type. 0 where there is none.
    pub source_port: u16,
    /// Destination port; ICMP: the code. 0 where there is none.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Code of the [`Reason`](crate::reason::Reason).
    pub reason: u8,
    /// Zero.
    pub padding: [u8; 2],
    /// Source address; zero where the frame has none.
    pub source: [u8; 16],
    /// Destination address; zero where the frame has none.
    pub destination: [u8; 16],
}

map_type!(Event, 64);
