//! What a compiled policy says about a destination.

use crate::impl_pod;

/// [`Verdict::flags`]: the sandbox has domain rules, so the egress proxy judges TCP to ports 80 and
/// 443 (line 7).
pub const VERDICT_REDIRECT_WEB: u8 = 1 << 0;
/// [`Verdict::flags`]: the sandbox has an `egressProxy`, so the agent tunnels TCP that this entry
/// allows.
pub const VERDICT_REDIRECT_TCP: u8 = 1 << 1;

/// [`Verdict::rule_index`] of a verdict that does not come from a list entry.
pub const NO_RULE: u32 = u32::MAX;

/// The verdict of a compiled policy's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Verdict {
    /// Code of the [`Reason`](crate::reason::Reason), which determines the verdict.
    pub reason_code: u8,
    /// [`VERDICT_REDIRECT_WEB`] and [`VERDICT_REDIRECT_TCP`].
    pub flags: u8,
    /// Identifies the compiled policy, so that events can be matched with the rules in force at the
    /// time.
    pub policy_id: u16,
    /// Index of the deciding entry in the list that the reason implies, or [`NO_RULE`].
    pub rule_index: u32,
}

impl_pod!(Verdict, 8);
