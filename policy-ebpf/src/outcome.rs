//! The two ends of a judgement. Neither is a return code of a hook: those are made in `main`.

use policy_common::{
    policy::{NO_RULE, Verdict},
    reason::Reason,
};

/// The packet may go on.
pub struct Pass(pub Verdict);

/// The packet ends here.
pub struct Drop(pub Verdict);

/// A judgement. Every `?` on the way is a drop with a reason.
pub type Judgement = Result<Pass, Drop>;

impl From<Reason> for Pass {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(verdict(reason))
    }
}

impl From<Reason> for Drop {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(verdict(reason))
    }
}

/// The judgement that a reason alone is.
pub trait Judge {
    fn judge(self) -> Judgement;
}

impl Judge for Reason {
    #[inline(always)]
    fn judge(self) -> Judgement {
        if self.passes() { Ok(self.into()) } else { Err(self.into()) }
    }
}

/// The judgement of a reason's code; one that is unknown drops.
#[inline(always)]
pub fn of_code(code: u8) -> Judgement {
    Reason::from_code(code).unwrap_or(Reason::Fragment).judge()
}

#[inline(always)]
fn verdict(reason: Reason) -> Verdict {
    Verdict { reason: reason as u8, flags: 0, policy: 0, rule: NO_RULE }
}
