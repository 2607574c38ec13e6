//! Names of maps and programs, in the object files and in the pin directory. At most 15 characters
//! each, because the kernel truncates longer names.

/// Slot → [`SandboxEndpoint`](crate::endpoint::SandboxEndpoint). Array.
pub const SANDBOXES: &str = "SANDBOXES";
/// The tables of all policies: an array whose single value has
/// [`TABLE_MEMORY_WORDS`](crate::policy_table::TABLE_MEMORY_WORDS) words. Mapped by the agent.
pub const POLICY_TABLES: &str = "POLICY_TABLES";
/// [`TriePrefixV4`](crate::policy_table::TriePrefixV4) → leaf. LPM trie of policies that are not in
/// `POLICY_TABLES`.
pub const POLICY_TRIE_V4: &str = "POLICY_TRIE_V4";
/// [`TriePrefixV6`](crate::policy_table::TriePrefixV6) → leaf. LPM trie of policies that are not in
/// `POLICY_TABLES`.
pub const POLICY_TRIE_V6: &str = "POLICY_TRIE_V6";
/// Slot and page → [`FlowPage`](crate::flow::FlowPage) of TCP connections that were opened to the
/// sandbox. Hash.
pub const INBOUND_TCP: &str = "INBOUND_TCP";
/// The same for UDP and ICMP echoes that the host sent to the sandbox. Hash.
pub const INBOUND_DATAGRAM: &str = "INBOUND_DGRAM";
/// Slot and page → [`FlowPage`](crate::flow::FlowPage) of TCP connections that the sandbox opened
/// or closed lately. Hash.
pub const OUTBOUND_TCP: &str = "OUTBOUND_TCP";
/// The same for fragmented datagrams from the sandbox whose first fragment passed. Hash.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// The same for datagram flows from the sandbox that were reported. Hash.
pub const FLOWS: &str = "FLOWS";
/// [Group](crate::counters::COUNTER_GROUP_SLOTS) → per-CPU array of
/// [`ReasonCounters`](crate::counters::ReasonCounters). Array of maps: a group's map is created for
/// its first sandbox, so memory grows with the number of sandboxes.
pub const COUNTERS: &str = "COUNTERS";
/// Slot → [`RateLimiterState`](crate::rate_limit::RateLimiterState). Array.
pub const LIMITS: &str = "LIMITS";
/// [Listener key](crate::redirect::listener_key) → the egress proxy's listener. Sockmap.
pub const PROXY_LISTENERS: &str = "PROXY_LISTENERS";
/// [`VerdictEvent`](crate::event::VerdictEvent) records. Ring buffer.
pub const EVENTS: &str = "EVENTS";
/// [`tail_call_index`] → TC program that the gates call. Program array.
pub const TC_PROGRAMS: &str = "TC_PROGRAMS";
/// Index 0 → XDP program that the XDP gates call. Program array.
pub const XDP_PROGRAMS: &str = "XDP_PROGRAMS";
/// The slot that an XDP gate passes to the program it calls. Per-CPU array with one element.
pub const XDP_SLOT: &str = "XDP_SLOT";

/// All maps that are pinned.
pub const PINNED_MAPS: [&str; 16] = [
    SANDBOXES,
    POLICY_TABLES,
    POLICY_TRIE_V4,
    POLICY_TRIE_V6,
    INBOUND_TCP,
    INBOUND_DATAGRAM,
    OUTBOUND_TCP,
    FRAGMENTS,
    FLOWS,
    COUNTERS,
    LIMITS,
    PROXY_LISTENERS,
    EVENTS,
    TC_PROGRAMS,
    XDP_PROGRAMS,
    XDP_SLOT,
];

/// Program in `policy.o`: judges packets sent by the sandbox (TC ingress of the host-side
/// interface).
pub const FROM_SANDBOX: &str = "from_sandbox";
/// Program in `policy.o`: allows simple packets sent by the sandbox, and calls `from_sandbox` for
/// others.
pub const FAST_PATH: &str = "fast_path";
/// Program in `policy.o`: judges packets sent to the sandbox (TC egress of the host-side
/// interface).
pub const TO_SANDBOX: &str = "to_sandbox";
/// Program in `policy.o`: delivers simple packets to the sandbox, and calls `to_sandbox` for others.
pub const FAST_DELIVERY: &str = "fast_delivery";
/// Program in `policy.o`: replies to a packet that `from_sandbox` denied.
pub const REJECT: &str = "reject";
/// Program in `policy.o`: redirects a packet that `from_sandbox` judged to the egress proxy.
pub const PROXY_REDIRECT: &str = "proxy_redirect";
/// Program in `policy.o`: drops packets in XDP that `from_sandbox` would drop.
pub const EARLY_DROP: &str = "early_drop";
/// Program in `gate.o` at TC ingress: sets the slot and calls `fast_path`.
pub const GATE_FROM: &str = "gate_from";
/// Program in `gate.o` at TC egress: sets the slot and calls `fast_delivery`.
pub const GATE_TO: &str = "gate_to";
/// Program in `gate.o` at XDP: sets the slot and calls `early_drop`.
pub const GATE_XDP: &str = "gate_xdp";
/// The global in `policy.o` that holds the [`SkbLayout`](crate::skb::SkbLayout).
pub const SKB_LAYOUT: &str = "SKB_LAYOUT";
/// The global in `policy.o` that holds the number of words in `POLICY_TABLES` minus one. A `u32`.
pub const TABLE_WORD_MASK: &str = "TABLE_WORD_MASK";
/// The global in `policy.o` that holds the bit of the [guard](crate::guard)'s mark. A `u32`.
pub const GUARD_MARK: &str = "GUARD_MARK";
/// The global in `gate.o` that holds the slot. A `u32`.
pub const GATE_SLOT_GLOBAL: &str = "SLOT";

/// Indices into [`TC_PROGRAMS`] and [`XDP_PROGRAMS`].
pub mod tail_call_index {
    /// `from_sandbox` in `TC_PROGRAMS`.
    pub const FROM_SANDBOX: u32 = 0;
    /// `to_sandbox` in `TC_PROGRAMS`.
    pub const TO_SANDBOX: u32 = 1;
    /// `reject` in `TC_PROGRAMS`.
    pub const REJECT: u32 = 2;
    /// `proxy_redirect` in `TC_PROGRAMS`.
    pub const PROXY_REDIRECT: u32 = 3;
    /// `fast_path` in `TC_PROGRAMS`.
    pub const FAST_PATH: u32 = 4;
    /// `fast_delivery` in `TC_PROGRAMS`.
    pub const FAST_DELIVERY: u32 = 5;
    /// The number of programs in `TC_PROGRAMS`.
    pub const TC_COUNT: u32 = 6;
    /// `early_drop` in `XDP_PROGRAMS`.
    pub const EARLY_DROP: u32 = 0;
    /// The number of programs in `XDP_PROGRAMS`.
    pub const XDP_COUNT: u32 = 1;
}
