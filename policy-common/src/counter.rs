//! Packets and bytes, per sandbox and reason.

use crate::{map_type, reason::REASONS};

/// Packets and bytes with one reason. A GSO super-packet counts as the packets it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets.
    pub packets: u64,
    /// Bytes, Ethernet headers included.
    pub bytes: u64,
}

/// Value of [`COUNTERS`](crate::name::COUNTERS), by slot and CPU; indexed by reason code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// By reason code.
    pub by_reason: [Counter; REASONS],
}

map_type!(Counter, 16);
map_type!(Counters, 512);
