//! Lines 4 to 9: one longest-prefix match in the sandbox's compiled policy.
//!
//! Small policies use the kernel's LPM trie. The trie of a large policy has a single entry, which
//! specifies the class of the poptrie that contains the verdicts.

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

/// Set by the agent before loading.
#[unsafe(no_mangle)]
static HUGE_POPTRIES: u32 = 1;

/// Whether this kernel supports huge poptries. If it does not, the verifier skips the code that
/// reads them.
#[inline(always)]
fn has_huge_poptries() -> bool {
    // SAFETY: the global is initialised and never written while programs run. The read is volatile
    // because the value is set after compilation.
    unsafe { core::ptr::read_volatile(&raw const HUGE_POPTRIES) != 0 }
}

/// The policy's verdict about the packet's destination. A missing trie or entry means that the
/// policy is not installed yet.
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

/// The verdict about an IPv4 address (in host byte order) as a leaf word. 0 means none.
///
/// `extern` and scalar arguments make this a global function, which the verifier checks once and
/// independently of its callers.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn policy_lookup_v4(slot: u32, address: u32) -> u64 {
    find_leaf_v4(slot, address).unwrap_or(0)
}

/// The verdict about an IPv6 address, passed as two halves in host byte order.
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
    // SAFETY: the sizes are equal, and bytes have no invalid values.
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

/// Line 5 for the IPv4 address of a Teredo client. It is inverted in the last 32 bits, so no prefix
/// of the trie can match it. The floor's verdict about the IPv6 address itself takes precedence.
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
