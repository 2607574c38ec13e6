//! The ends of a judgement. None is a return code of a hook: those are made in `main`.

use policy_common::{
    policy::{NO_RULE, Verdict},
    reason::Reason,
};

/// The packet may go on.
pub struct Pass(pub Verdict);

/// The packet may go to the egress proxy and nowhere else. No `Pass` can be made of it but by
/// handing it over (`hand_over`).
pub struct HandOver(pub Verdict);

/// Where a packet may go.
pub enum Way {
    /// On, to where it was sent.
    On(Pass),
    /// To the egress proxy.
    Proxy(HandOver),
}

impl Way {
    /// What the policy says.
    #[inline(always)]
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::On(Pass(verdict)) | Self::Proxy(HandOver(verdict)) => *verdict,
        }
    }
}

/// The packet ends here.
pub struct Drop(pub Verdict);

/// A judgement. Every `?` on the way is a drop with a reason.
pub type Judgement<T = Pass> = Result<T, Drop>;

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

impl Drop {
    /// The packet was for the egress proxy, which is not there.
    #[inline(always)]
    pub fn without_proxy(verdict: Verdict) -> Self {
        let reason = Reason::ProxyUnavailable as u8;
        Self(Verdict { reason, rule: NO_RULE, ..verdict })
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
