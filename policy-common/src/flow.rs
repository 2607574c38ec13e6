//! State that the kernel programs keep between packets: connections, first fragments and reported
//! flows.

use crate::impl_pod;

/// Number of pages that a sandbox may have in [`INBOUND_TCP`](crate::bpf_names::INBOUND_TCP) and in
/// [`OUTBOUND_TCP`](crate::bpf_names::OUTBOUND_TCP). A power of two.
pub const TCP_FLOW_PAGES: u32 = 64;
/// Number of pages that a sandbox may have in
/// [`INBOUND_DATAGRAM`](crate::bpf_names::INBOUND_DATAGRAM). A power of two.
pub const DATAGRAM_FLOW_PAGES: u32 = 16;
/// Number of pages that a sandbox may have in [`FRAGMENTS`](crate::bpf_names::FRAGMENTS). A power of
/// two.
pub const FRAGMENT_PAGES: u32 = 8;
/// Number of pages that a sandbox may have in [`FLOWS`](crate::bpf_names::FLOWS). A power of two.
pub const REPORTED_FLOW_PAGES: u32 = 16;
/// Number of sets in a page.
pub const FLOW_SETS_PER_PAGE: usize = 7;
/// Number of flows in a set. A power of two.
pub const FLOWS_PER_SET: usize = 8;

/// Value of the flow tables: a part of the flows of one sandbox. A flow's
/// [fingerprint](crate::flow_fingerprint) selects the page (low half) and the set in it (high half).
///
/// Pages are allocated when they are first used and never freed, so a table takes memory only for
/// sandboxes that have such flows, and no sandbox can displace the flows of another. With the
/// headers of the kernel's hash table, a page is 1 KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowPage {
    /// Sets of flows, searched as a whole.
    pub sets: [FlowSet; FLOW_SETS_PER_PAGE],
}

/// The flows whose fingerprints select this set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowSet {
    /// Until this time (in ticks) a flow that was displaced may have been live. Only in
    /// [`OUTBOUND_TCP`](crate::bpf_names::OUTBOUND_TCP).
    pub incomplete_until: u64,
    /// The flows, in no order.
    pub flows: [Flow; FLOWS_PER_SET],
}

/// A flow. Both words are written independently: a flow counts only if its fingerprint is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Its [fingerprint](crate::flow_fingerprint), or 0.
    pub fingerprint: u64,
    /// The time at which it ends, in [ticks](FLOW_TICK_SHIFT), and the flags `FLOW_*`.
    pub state: u64,
}

/// A tick is 2²⁰ ns of the monotonic clock, about a millisecond.
pub const FLOW_TICK_SHIFT: u32 = 20;
/// The bits of [`Flow::state`] that hold the time.
pub const FLOW_TIME_MASK: u64 = (1 << 48) - 1;
/// The sandbox has answered with more than the second segment of a handshake. Such flows are
/// displaced last.
pub const FLOW_USED: u64 = 1 << 63;
/// The connection has ended. Nothing extends its time.
pub const FLOW_ENDED: u64 = 1 << 50;
/// Position of the reason code in the state of a first fragment.
pub const FRAGMENT_REASON_SHIFT: u32 = 48;
/// The sandbox has sent a FIN.
pub const FLOW_FIN_SENT: u64 = 1 << 49;
/// The peer has sent a FIN.
pub const FLOW_FIN_RECEIVED: u64 = 1 << 48;

impl_pod!(FlowPage, 952);
