//! The maps. `policy-common` documents their keys and values.

use aya_ebpf::{
    btf_maps::{
        Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, SockMap,
    },
    macros::btf_map,
};
use policy_common::{
    counters::ReasonCounters,
    endpoint::{MAX_SANDBOXES, SandboxEndpoint},
    event::{EVENT_RING_BYTES, VerdictEvent},
    flow::{
        FragmentedDatagramKey, InboundConnectionKey, MAX_FRAGMENTED_DATAGRAMS,
        MAX_INBOUND_CONNECTIONS, MAX_REPORTED_FLOWS, ReportedFlowKey,
    },
    poptrie::{HUGE_POPTRIE_WORDS, LARGE_POPTRIE_WORDS},
    rate_limit::RateLimiterState,
    verdict::Verdict,
};

const SLOT_COUNT: usize = MAX_SANDBOXES as usize;

/// Value of the tries. An array with one element, because Linux 6.1 searches structures for timers.
/// The kernel then considers the inner map template different from the agent's maps, which it did
/// not search.
pub(crate) type TrieValue = [Verdict; 1];

/// A trie of IPv4 prefixes. The agent sizes each to its policy.
pub(crate) type PolicyTrieV4 = LpmTrie<[u8; 4], TrieValue, 1>;
/// A trie of IPv6 prefixes.
pub(crate) type PolicyTrieV6 = LpmTrie<[u8; 16], TrieValue, 1>;

/// A poptrie of a large policy: a single value that contains the whole block.
pub(crate) type PoptrieBlock<const WORDS: usize> = Array<[u64; WORDS], 1>;

#[btf_map]
pub(crate) static SANDBOXES: Array<SandboxEndpoint, SLOT_COUNT> = Array::new();
#[btf_map]
pub(crate) static POLICIES_V4: ArrayOfMaps<PolicyTrieV4, SLOT_COUNT> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static POLICIES_V6: ArrayOfMaps<PolicyTrieV6, SLOT_COUNT> = ArrayOfMaps::new();
#[btf_map]
pub(crate) static LARGE_V4: ArrayOfMaps<PoptrieBlock<LARGE_POPTRIE_WORDS>, SLOT_COUNT> =
    ArrayOfMaps::new();
#[btf_map]
pub(crate) static LARGE_V6: ArrayOfMaps<PoptrieBlock<LARGE_POPTRIE_WORDS>, SLOT_COUNT> =
    ArrayOfMaps::new();
#[btf_map]
pub(crate) static HUGE_V4: ArrayOfMaps<PoptrieBlock<HUGE_POPTRIE_WORDS>, SLOT_COUNT> =
    ArrayOfMaps::new();
#[btf_map]
pub(crate) static HUGE_V6: ArrayOfMaps<PoptrieBlock<HUGE_POPTRIE_WORDS>, SLOT_COUNT> =
    ArrayOfMaps::new();
#[btf_map]
pub(crate) static INBOUND: LruHashMap<InboundConnectionKey, u64, MAX_INBOUND_CONNECTIONS> =
    LruHashMap::new();
#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentedDatagramKey, u64, MAX_FRAGMENTED_DATAGRAMS> =
    LruHashMap::new();
#[btf_map]
pub(crate) static FLOWS: LruHashMap<ReportedFlowKey, u64, MAX_REPORTED_FLOWS> = LruHashMap::new();
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<ReasonCounters, SLOT_COUNT> = PerCpuArray::new();
#[btf_map]
pub(crate) static LIMITS: Array<RateLimiterState, SLOT_COUNT> = Array::new();
#[btf_map]
pub(crate) static PROXY_LISTENERS: SockMap<{ 2 * SLOT_COUNT }> = SockMap::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<VerdictEvent, EVENT_RING_BYTES> = RingBuf::new();
#[btf_map]
pub(crate) static TC_PROGRAMS: ProgramArray<4> = ProgramArray::new();
#[btf_map]
pub(crate) static XDP_PROGRAMS: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub(crate) static XDP_SLOT: PerCpuArray<u32, 1> = PerCpuArray::new();
