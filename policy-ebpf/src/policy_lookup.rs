//! Lines 4 to 9: one longest-prefix match in the sandbox's compiled policy.
//!
//! Small policies are a trie of the kernel's. The trie of a large one holds a single entry that says
//! in which class of table the answer stands.

use aya_ebpf::btf_maps::lpm_trie::Key;
use policy_common::{
    poptrie::{VERDICT_IN_HUGE_POPTRIE, VERDICT_IN_LARGE_POPTRIE, decode_leaf, encode_leaf},
    reason::Reason,
    verdict::Verdict,
};

use crate::{
    ip_header::IpHeader,
    maps::{HUGE_V4, HUGE_V6, LARGE_V4, LARGE_V6, POLICIES_V4, POLICIES_V6},
    poptrie,
};

/// 2001::/32, Teredo (RFC 4380).
const TEREDO_PREFIX: u64 = 0x2001_0000;

/// Filled in by the agent.
#[unsafe(no_mangle)]
static HUGE_POPTRIES: u32 = 1;

/// Whether this kernel can have huge tables. Where it cannot, the verifier does not look at the code
/// that reads them.
#[inline(always)]
fn has_huge_poptries() -> bool {
    // SAFETY: the global is initialised and never written to while programs run. Volatile, since its
    // value here is not the one that it is compiled with.
    unsafe { core::ptr::read_volatile(&raw const HUGE_POPTRIES) != 0 }
}

/// What the policy says about the packet's destination. No trie, or one without an answer, is a
/// policy that is not there yet.
#[inline(always)]
pub(crate) fn lookup_verdict(slot: u32, header: &IpHeader) -> Result<Verdict, Reason> {
    let [a, b, c, d] = header.destination.map(u32::from_be);
    let word = if header.is_v6 {
        policy_lookup_v6(slot, u64::from(a) << 32 | u64::from(b), u64::from(c) << 32 | u64::from(d))
    } else {
        policy_lookup_v4(slot, d)
    };
    match decode_leaf(word) {
        Verdict { reason_code: 0, .. } => Err(Reason::NoPolicy),
        verdict => Ok(verdict),
    }
}

/// The verdict about an IPv4 address, as the word of a leaf; 0 is none. The address is a number.
///
/// A global function, as its `extern` and its plain arguments make it: the verifier judges it once
/// by itself, and not again for everything that a caller may know.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn policy_lookup_v4(slot: u32, address: u32) -> u64 {
    find_leaf_v4(slot, address).unwrap_or(0)
}

/// The verdict about an IPv6 address, given as the number of its halves.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn policy_lookup_v6(slot: u32, high: u64, low: u64) -> u64 {
    let Some(word) = find_leaf_v6(slot, high, low) else { return 0 };
    if high >> 32 == TEREDO_PREFIX { deny_teredo_client(slot, low, word) } else { word }
}

#[inline(always)]
fn find_leaf_v4(slot: u32, address: u32) -> Option<u64> {
    let key = Key::new(32, address.to_be_bytes());
    let [verdict] = *POLICIES_V4.get(slot)?.get(&key)?;
    if verdict.flags & VERDICT_IN_LARGE_POPTRIE != 0 {
        return poptrie::lookup_v4(LARGE_V4.get(slot)?.get(0)?, address);
    }
    if verdict.flags & VERDICT_IN_HUGE_POPTRIE != 0 && has_huge_poptries() {
        return poptrie::lookup_v4(HUGE_V4.get(slot)?.get(0)?, address);
    }
    Some(encode_leaf(verdict))
}

#[inline(always)]
fn find_leaf_v6(slot: u32, high: u64, low: u64) -> Option<u64> {
    let halves = [high.to_be(), low.to_be()];
    // SAFETY: same size, and bytes have no invalid values.
    let key = Key::new(128, unsafe { core::mem::transmute::<[u64; 2], [u8; 16]>(halves) });
    let [verdict] = *POLICIES_V6.get(slot)?.get(&key)?;
    if verdict.flags & VERDICT_IN_LARGE_POPTRIE != 0 {
        return poptrie::lookup_v6(LARGE_V6.get(slot)?.get(0)?, high, low);
    }
    if verdict.flags & VERDICT_IN_HUGE_POPTRIE != 0 && has_huge_poptries() {
        return poptrie::lookup_v6(HUGE_V6.get(slot)?.get(0)?, high, low);
    }
    Some(encode_leaf(verdict))
}

/// Line 5 for the IPv4 address of a Teredo client, which stands inverted in the last 32 bits and
/// so cannot be a prefix of the trie. What the floor says about the address itself comes first.
#[inline(always)]
fn deny_teredo_client(slot: u32, low: u64, word: u64) -> u64 {
    let reason = decode_leaf(word).reason_code;
    if reason == Reason::PlatformAllow as u8 || reason == Reason::PlatformDeny as u8 {
        return word;
    }
    #[expect(clippy::cast_possible_truncation, reason = "the client is the low half")]
    let client = policy_lookup_v4(slot, !(low as u32));
    let denied = decode_leaf(client).reason_code == Reason::PlatformDeny as u8;
    if denied { client } else { word }
}
