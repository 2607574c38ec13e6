//! Lines 4 to 9: one longest-prefix match in the sandbox's compiled policy.

use aya_ebpf::btf_maps::lpm_trie::Key;
use policy_common::{policy::Verdict, reason::Reason};

use crate::{
    header::{Address, Header, bytes},
    maps::{POLICIES_V4, POLICIES_V6},
};

/// 2001::/32, Teredo (RFC 4380).
const TEREDO: u32 = 0x2001_0000_u32.to_be();

/// What the policy says about the packet's destination. No trie, or one without an answer, is a
/// policy that is not there yet.
#[inline(always)]
pub fn lookup(slot: u32, header: &Header) -> Result<Verdict, Reason> {
    let verdict = if header.v6 {
        v6(slot, header.destination)
    } else {
        v4(slot, header.destination[3])
    };
    verdict.ok_or(Reason::NoPolicy)
}

#[inline(always)]
fn v4(slot: u32, destination: u32) -> Option<Verdict> {
    let key = Key::new(32, destination.to_ne_bytes());
    POLICIES_V4.get(slot)?.get(&key).copied()
}

#[inline(always)]
fn v6(slot: u32, destination: Address) -> Option<Verdict> {
    let key = Key::new(128, bytes(destination));
    let verdict = POLICIES_V6.get(slot)?.get(&key).copied()?;
    if destination[0] == TEREDO { teredo(slot, destination, verdict) } else { Some(verdict) }
}

/// Line 5 for the IPv4 address of a Teredo client, which stands inverted in the last 32 bits and
/// so cannot be a prefix of the trie.
#[inline(always)]
fn teredo(slot: u32, destination: Address, verdict: Verdict) -> Option<Verdict> {
    if verdict.reason == Reason::PlatformAllow as u8 {
        return Some(verdict);
    }
    let client = v4(slot, !destination[3])?;
    let denied = client.reason == Reason::PlatformDeny as u8;
    Some(if denied { client } else { verdict })
}
