//! The maps. `policy-common` documents their keys and values.

use aya_ebpf::{
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, PerCpuArray, ProgramArray, RingBuf, SockMap},
    macros::btf_map,
};
use policy_common::{
    counters::{COUNTER_GROUP_SLOTS, COUNTER_GROUPS, ReasonCounters},
    endpoint::{MAX_SANDBOXES, SandboxEndpoint},
    event::{EVENT_RING_BYTES, VerdictEvent},
    flow::{DATAGRAM_FLOW_PAGES, FRAGMENT_PAGES, FlowPage, REPORTED_FLOW_PAGES, TCP_FLOW_PAGES},
    policy_table::{MAX_TRIE_PREFIXES, TABLE_MEMORY_WORDS, TriePrefixV4, TriePrefixV6},
    rate_limit::RateLimiterState,
};

const SLOT_COUNT: usize = MAX_SANDBOXES as usize;

/// The memory for the tables of all policies.
pub(crate) type TableMemory = [u32; TABLE_MEMORY_WORDS];

/// Lets the agent map the array.
const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

/// A flow table with room for all pages of all slots.
pub(crate) type FlowTable<const PAGES: usize> =
    HashMap<u32, FlowPage, PAGES, { BPF_F_NO_PREALLOC as usize }>;

/// The counters of a group of slots. The value is an array, because Linux 6.1 searches structures
/// for timers. It would then refuse the agent's maps, which it did not search.
pub(crate) type CounterGroup = PerCpuArray<[ReasonCounters; 1], { COUNTER_GROUP_SLOTS as usize }>;

#[btf_map]
pub(crate) static SANDBOXES: Array<SandboxEndpoint, SLOT_COUNT, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static POLICY_TABLES: Array<TableMemory, 1, MMAPABLE> = Array::new();
#[btf_map]
pub(crate) static POLICY_TRIE_V4: LpmTrie<TriePrefixV4, u32, MAX_TRIE_PREFIXES> = LpmTrie::new();
#[btf_map]
pub(crate) static POLICY_TRIE_V6: LpmTrie<TriePrefixV6, u32, MAX_TRIE_PREFIXES> = LpmTrie::new();
#[btf_map]
pub(crate) static INBOUND_TCP: FlowTable<{ SLOT_COUNT * TCP_FLOW_PAGES as usize }> =
    FlowTable::new();
#[btf_map]
pub(crate) static INBOUND_DGRAM: FlowTable<{ SLOT_COUNT * DATAGRAM_FLOW_PAGES as usize }> =
    FlowTable::new();
#[btf_map]
pub(crate) static OUTBOUND_TCP: FlowTable<{ SLOT_COUNT * TCP_FLOW_PAGES as usize }> =
    FlowTable::new();
#[btf_map]
pub(crate) static FRAGMENTS: FlowTable<{ SLOT_COUNT * FRAGMENT_PAGES as usize }> = FlowTable::new();
#[btf_map]
pub(crate) static FLOWS: FlowTable<{ SLOT_COUNT * REPORTED_FLOW_PAGES as usize }> =
    FlowTable::new();
#[btf_map]
pub(crate) static COUNTERS: ArrayOfMaps<CounterGroup, { COUNTER_GROUPS as usize }> =
    ArrayOfMaps::new();
#[btf_map]
pub(crate) static LIMITS: Array<RateLimiterState, SLOT_COUNT> = Array::new();
#[btf_map]
pub(crate) static PROXY_LISTENERS: SockMap<{ 2 * SLOT_COUNT }> = SockMap::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<VerdictEvent, EVENT_RING_BYTES> = RingBuf::new();
#[btf_map]
pub(crate) static TC_PROGRAMS: ProgramArray<6> = ProgramArray::new();
#[btf_map]
pub(crate) static XDP_PROGRAMS: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub(crate) static XDP_SLOT: PerCpuArray<u32, 1> = PerCpuArray::new();
