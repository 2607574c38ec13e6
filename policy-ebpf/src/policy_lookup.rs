//! Lines 4 to 9: one longest-prefix match in the tables of the sandbox's compiled policy.
//!
//! The tables are in `POLICY_TABLES`, one block per policy. The LPM tries hold the policies that do
//! not fit there, or all (`dataplane.tables = "lpm"`).

use aya_ebpf::btf_maps::lpm_trie::Key;
use policy_common::{
    endpoint::SandboxEndpoint,
    policy_table::{
        self, BLOCK_POLICY_ID, BLOCK_ROOT_V4, BLOCK_ROOT_V6, LPM_TRIE_REFERENCE,
        TABLE_MEMORY_WORDS, TableWords, TriePrefixV4, TriePrefixV6,
    },
    reason::Reason,
    verdict::Verdict,
};

use crate::{
    constant_length::length_as_u32,
    ip_header::IpHeader,
    maps::{POLICY_TABLES, POLICY_TRIE_V4, POLICY_TRIE_V6, SANDBOXES},
};

/// 2001::/32, Teredo (RFC 4380).
pub(crate) const TEREDO_PREFIX: u64 = 0x2001_0000;

/// The number of words in `POLICY_TABLES`, a power of two, minus one. Set by the agent before
/// loading, to the size that the kernel allows.
#[unsafe(no_mangle)]
static TABLE_WORD_MASK: u32 = length_as_u32(TABLE_MEMORY_WORDS) - 1;

/// The tables of one policy.
#[derive(Clone, Copy)]
pub(crate) struct PolicyBlock {
    words: *const u32,
    mask: u32,
    /// Index of its first word.
    start: u32,
}

impl PolicyBlock {
    /// The block that starts at this index.
    #[inline(always)]
    pub(crate) fn at(start: u32) -> Option<Self> {
        // SAFETY: the global is initialised and never written while programs run. The read is
        // volatile because the value is set after compilation.
        let mask = unsafe { core::ptr::read_volatile(&raw const TABLE_WORD_MASK) };
        (start != 0).then_some(Self { words: POLICY_TABLES.get_ptr(0)?.cast(), mask, start })
    }

    /// The leaf of an IPv4 address (in host byte order), or a reference that is not a leaf. Unless
    /// `WHOLE`, the leaf may lack its rule.
    #[inline(always)]
    pub(crate) fn find_v4<const WHOLE: bool>(&self, address: u32) -> u32 {
        let root = self.header_word(BLOCK_ROOT_V4);
        policy_table::find_leaf::<WHOLE>(self, self.start, root, u64::from(address) << 32, 0)
    }

    /// The same for an IPv6 address, passed as two halves in host byte order.
    #[inline(always)]
    pub(crate) fn find_v6<const WHOLE: bool>(&self, high: u64, low: u64) -> u32 {
        let root = self.header_word(BLOCK_ROOT_V6);
        policy_table::find_leaf::<WHOLE>(self, self.start, root, high, low)
    }

    #[inline(always)]
    fn header_word(&self, offset: u32) -> u32 {
        self.word(self.start.wrapping_add(offset))
    }

    #[inline(always)]
    fn policy_id(&self) -> u16 {
        #[expect(clippy::cast_possible_truncation, reason = "the agent stores 16 bits")]
        let policy_id = self.header_word(BLOCK_POLICY_ID) as u16;
        policy_id
    }
}

impl TableWords for PolicyBlock {
    #[inline(always)]
    fn word(&self, index: u32) -> u32 {
        // SAFETY: the index is within the map's value, however wrong it is. The agent never changes
        // a block that a program may read.
        unsafe { self.words.add((index & self.mask) as usize).read() }
    }

    #[inline(always)]
    fn pair(&self, index: u32) -> u64 {
        let even = self.mask & !1;
        // SAFETY: as above. The map's value is aligned to 8 bytes.
        unsafe { self.words.add((index & even) as usize).cast::<u64>().read() }
    }
}

/// The policy's verdict about the packet's destination. A missing block or leaf means that the
/// policy is not installed yet.
#[inline(always)]
pub(crate) fn lookup_verdict(slot: u32, header: &IpHeader) -> Result<Verdict, Reason> {
    let start = SANDBOXES.get(slot).map_or(0, policy_block_start);
    let [a, b, c, d] = header.destination.map(u32::from_be);
    let leaf = if header.is_v6 {
        let (high, low) = (u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d));
        policy_lookup_v6(start, high, low)
    } else {
        policy_lookup_v4(start, d)
    };
    let policy_id = PolicyBlock::at(start).map_or(0, |block| block.policy_id());
    match policy_table::decode_leaf(leaf, policy_id) {
        Verdict { reason_code: 0, .. } => Err(Reason::NoPolicy),
        verdict => Ok(verdict),
    }
}

/// The start of the block of a sandbox's policy. 0 means none. Read once per lookup: the agent may
/// replace it at any time.
#[inline(always)]
pub(crate) fn policy_block_start(sandbox: &SandboxEndpoint) -> u32 {
    // SAFETY: the field is valid. The read is volatile, so that it happens once.
    unsafe { core::ptr::read_volatile(&raw const sandbox.policy_block) }
}

/// The leaf of an IPv4 address (in host byte order) in the block at `start`. 0 means none.
///
/// `extern` and scalar arguments make this a global function, which the verifier checks once and
/// independently of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn policy_lookup_v4(start: u32, address: u32) -> u32 {
    let Some(block) = PolicyBlock::at(start) else { return 0 };
    match block.find_v4::<true>(address) {
        LPM_TRIE_REFERENCE => find_in_trie_v4(block.policy_id(), address),
        leaf => leaf,
    }
}

/// The leaf of an IPv6 address, passed as two halves in host byte order.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn policy_lookup_v6(start: u32, high: u64, low: u64) -> u32 {
    let Some(block) = PolicyBlock::at(start) else { return 0 };
    let leaf = match block.find_v6::<true>(high, low) {
        LPM_TRIE_REFERENCE => find_in_trie_v6(block.policy_id(), high, low),
        leaf => leaf,
    };
    if high >> 32 == TEREDO_PREFIX { deny_teredo_client(start, low, leaf) } else { leaf }
}

#[inline(always)]
fn find_in_trie_v4(policy_id: u16, address: u32) -> u32 {
    let prefix =
        TriePrefixV4 { policy_id: u32::from(policy_id).to_be(), address: address.to_be_bytes() };
    POLICY_TRIE_V4.get(&Key::new(TriePrefixV4::BITS, prefix)).copied().unwrap_or(0)
}

#[inline(always)]
fn find_in_trie_v6(policy_id: u16, high: u64, low: u64) -> u32 {
    let halves = [high.to_be(), low.to_be()];
    // SAFETY: the sizes are equal, and bytes have no invalid values.
    let address = unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(halves) };
    let prefix = TriePrefixV6 { policy_id: u32::from(policy_id).to_be(), address };
    POLICY_TRIE_V6.get(&Key::new(TriePrefixV6::BITS, prefix)).copied().unwrap_or(0)
}

/// Line 5 for the IPv4 address of a Teredo client. It is inverted in the last 32 bits, so no prefix
/// of the trie can match it. The floor's verdict about the IPv6 address itself takes precedence.
#[inline(always)]
fn deny_teredo_client(start: u32, low: u64, leaf: u32) -> u32 {
    let reason = policy_table::leaf_reason_code(leaf);
    if reason == Reason::PlatformAllow as u8 || reason == Reason::PlatformDeny as u8 {
        return leaf;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the client is the low half")]
    let client = policy_lookup_v4(start, !(low as u32));
    let denied = policy_table::leaf_reason_code(client) == Reason::PlatformDeny as u8;
    if denied { client } else { leaf }
}
