//! Packets and bytes, per sandbox and reason.

use crate::{impl_pod, reason::KERNEL_REASON_CODES};

/// Packets and bytes with one reason. A GSO super-packet counts as the packets it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct PacketCounter {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
}

/// Value of [`COUNTERS`](crate::bpf_names::COUNTERS), by slot and CPU; indexed by reason code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReasonCounters {
    /// By reason code.
    pub by_reason: [PacketCounter; KERNEL_REASON_CODES],
}

impl_pod!(PacketCounter, 16);
impl_pod!(ReasonCounters, 512);
