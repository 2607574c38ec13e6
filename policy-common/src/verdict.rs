//! The compiled policy: one trie per address family, from prefix to [`Verdict`].
//!
//! Every trie holds the /0 prefix, so a lookup always finds something; where it does not, the
//! packet is dropped.

use crate::impl_pod;

/// [`Verdict::flags`]: the sandbox has domain rules, so TCP to ports 80 and 443 is for the egress
/// proxy to judge (line 7).
pub const VERDICT_REDIRECT_WEB: u8 = 1 << 0;
/// [`Verdict::flags`]: the sandbox has an `egressProxy`, so TCP that this entry lets out is for
/// the agent to tunnel.
pub const VERDICT_REDIRECT_TCP: u8 = 1 << 1;

/// [`Verdict::rule_index`] of a verdict that no list entry gave.
pub const NO_RULE: u32 = u32::MAX;

/// Value in the tries of [`POLICIES_V4`](crate::bpf_names::POLICIES_V4) and
/// [`POLICIES_V6`](crate::bpf_names::POLICIES_V6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Verdict {
    /// Code of the [`Reason`](crate::reason::Reason), which holds the verdict.
    pub reason_code: u8,
    /// [`VERDICT_REDIRECT_WEB`], [`VERDICT_REDIRECT_TCP`].
    pub flags: u8,
    /// Which compiled policy this is, so that an event can be matched with the rules in force when
    /// it was written.
    pub policy_id: u16,
    /// Index of the deciding entry in the list that the reason names, or [`NO_RULE`].
    pub rule_index: u32,
}

impl_pod!(Verdict, 8);
