//! Packet and byte counters per sandbox and reason.

use crate::{endpoint::MAX_SANDBOXES, impl_pod, reason::KERNEL_REASON_CODES};

/// Number of slots whose counters are in one inner map.
pub const COUNTER_GROUP_SLOTS: u32 = 64;
/// Number of inner maps.
pub const COUNTER_GROUPS: u32 = MAX_SANDBOXES / COUNTER_GROUP_SLOTS;

/// Packets and bytes with one reason. A GSO super-packet counts as the packets it represents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PacketCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes, including Ethernet headers.
    pub bytes: u64,
}

/// Value of the inner maps of [`COUNTERS`](crate::bpf_names::COUNTERS), per slot and CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReasonCounters {
    /// Counters, indexed by reason code.
    pub by_reason: [PacketCounter; KERNEL_REASON_CODES],
}

impl_pod!(PacketCounter, 16);
impl_pod!(ReasonCounters, 512);
