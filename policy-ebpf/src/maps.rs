//! The maps. Their meaning stands with their types, in `policy-common`.

use aya_ebpf::{
    btf_maps::{
        Array, ArrayOfMaps, LpmTrie, LruHashMap, PerCpuArray, ProgramArray, RingBuf, SockMap,
    },
    macros::btf_map,
};
use policy_common::{
    counter::Counters,
    event::{Event, RING_BYTES},
    flow::{FlowKey, FragmentKey, InboundKey, MAX_FLOWS, MAX_FRAGMENTS, MAX_INBOUND},
    limit::Limits,
    policy::Verdict,
    sandbox::{MAX_SANDBOXES, Sandbox},
    table::{HUGE_WORDS, LARGE_WORDS},
};

const SLOTS: usize = MAX_SANDBOXES as usize;

/// Value of the tries. An array of one, since Linux 6.1 looks into structures for timers, and takes
/// a template that it looked into for unlike the agent's maps, which it did not.
pub type Leaf = [Verdict; 1];

/// Shape of the tries of IPv4 prefixes. The agent makes each as large as its policy.
pub type TrieV4 = LpmTrie<[u8; 4], Leaf, 1>;
/// Shape of the tries of IPv6 prefixes.
pub type TrieV6 = LpmTrie<[u8; 16], Leaf, 1>;

/// Shape of the tables of large policies: one value that is the whole block.
pub type Block<const WORDS: usize> = Array<[u64; WORDS], 1>;

#[btf_map]
pub static SANDBOXES: Array<Sandbox, SLOTS> = Array::new();
#[btf_map]
pub static POLICIES_V4: ArrayOfMaps<TrieV4, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static POLICIES_V6: ArrayOfMaps<TrieV6, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static LARGE_V4: ArrayOfMaps<Block<LARGE_WORDS>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static LARGE_V6: ArrayOfMaps<Block<LARGE_WORDS>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static HUGE_V4: ArrayOfMaps<Block<HUGE_WORDS>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static HUGE_V6: ArrayOfMaps<Block<HUGE_WORDS>, SLOTS> = ArrayOfMaps::new();
#[btf_map]
pub static INBOUND: LruHashMap<InboundKey, u64, MAX_INBOUND> = LruHashMap::new();
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, u64, MAX_FRAGMENTS> = LruHashMap::new();
#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, u64, MAX_FLOWS> = LruHashMap::new();
#[btf_map]
pub static COUNTERS: PerCpuArray<Counters, SLOTS> = PerCpuArray::new();
#[btf_map]
pub static LIMITS: Array<Limits, SLOTS> = Array::new();
#[btf_map]
pub static DOORS: SockMap<{ 2 * SLOTS }> = SockMap::new();
#[btf_map]
pub static EVENTS: RingBuf<Event, RING_BYTES> = RingBuf::new();
#[btf_map]
pub static TC_PROGRAMS: ProgramArray<4> = ProgramArray::new();
#[btf_map]
pub static XDP_PROGRAMS: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub static XDP_SLOT: PerCpuArray<u32, 1> = PerCpuArray::new();
