//! The ends of a judgement. None is a return code of a hook: those are made in `main`.

use policy_common::{
    reason::Reason,
    verdict::{NO_RULE, Verdict},
};

/// The packet may go on.
pub(crate) struct AllowPacket(pub Verdict);

/// The packet may go to the egress proxy and nowhere else. No `Pass` can be made of it but by
/// handing it over (`proxy_redirect`).
pub(crate) struct RedirectPacket(pub Verdict);

/// Where a packet may go.
pub(crate) enum PacketDisposition {
    /// On, to where it was sent.
    Allow(AllowPacket),
    /// To the egress proxy.
    Redirect(RedirectPacket),
}

impl PacketDisposition {
    /// What the policy says.
    #[inline(always)]
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Allow(AllowPacket(verdict)) | Self::Redirect(RedirectPacket(verdict)) => *verdict,
        }
    }
}

/// The packet ends here.
pub(crate) struct DenyPacket(pub Verdict);

/// A judgement. Every `?` on the way is a drop with a reason.
pub(crate) type PacketResult<T = AllowPacket> = Result<T, DenyPacket>;

impl From<Reason> for AllowPacket {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(verdict_of_reason(reason))
    }
}

impl From<Reason> for DenyPacket {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self(verdict_of_reason(reason))
    }
}

impl DenyPacket {
    /// The packet was for the egress proxy, which is not there.
    #[inline(always)]
    pub(crate) fn proxy_unavailable(verdict: Verdict) -> Self {
        let reason = Reason::ProxyUnavailable as u8;
        Self(Verdict { reason_code: reason, rule_index: NO_RULE, ..verdict })
    }
}

/// The judgement that a reason alone is.
pub(crate) trait IntoPacketResult {
    fn into_packet_result(self) -> PacketResult;
}

impl IntoPacketResult for Reason {
    #[inline(always)]
    fn into_packet_result(self) -> PacketResult {
        if self.passes() { Ok(self.into()) } else { Err(self.into()) }
    }
}

/// The judgement of a reason's code; one that is unknown drops.
#[inline(always)]
pub(crate) fn result_of_reason_code(code: u8) -> PacketResult {
    Reason::from_code(code).unwrap_or(Reason::Fragment).into_packet_result()
}

#[inline(always)]
fn verdict_of_reason(reason: Reason) -> Verdict {
    Verdict { reason_code: reason as u8, flags: 0, policy_id: 0, rule_index: NO_RULE }
}
