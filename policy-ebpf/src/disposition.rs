//! Dispositions of packets. They are not return codes of hooks, which are only chosen in `main`.

use policy_common::{
    reason::Reason,
    verdict::{NO_RULE, Verdict},
};

/// The packet may pass.
pub(crate) struct AllowPacket(pub Verdict);

/// The packet may only be redirected to the egress proxy. It becomes an [`AllowPacket`] only by
/// being redirected (`proxy_redirect`).
pub(crate) struct RedirectPacket(pub Verdict);

/// What may happen to a packet that is not denied.
pub(crate) enum PacketDisposition {
    /// It may pass to its destination.
    Allow(AllowPacket),
    /// It must be redirected to the egress proxy.
    Redirect(RedirectPacket),
}

impl PacketDisposition {
    /// The policy's verdict.
    #[inline(always)]
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Allow(AllowPacket(verdict)) | Self::Redirect(RedirectPacket(verdict)) => *verdict,
        }
    }
}

/// The packet is dropped.
pub(crate) struct DenyPacket(pub Verdict);

/// The result of judging a packet. Every `?` on the packet path is a drop with a reason.
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
    /// The packet was for the egress proxy, which is unavailable.
    #[inline(always)]
    pub(crate) fn proxy_unavailable(verdict: Verdict) -> Self {
        let reason = Reason::ProxyUnavailable as u8;
        Self(Verdict { reason_code: reason, rule_index: NO_RULE, ..verdict })
    }
}

/// Converts a reason to a result.
pub(crate) trait IntoPacketResult {
    fn into_packet_result(self) -> PacketResult;
}

impl IntoPacketResult for Reason {
    #[inline(always)]
    fn into_packet_result(self) -> PacketResult {
        if self.passes() { Ok(self.into()) } else { Err(self.into()) }
    }
}

/// Converts a reason code to a result. Unknown codes drop the packet.
#[inline(always)]
pub(crate) fn result_of_reason_code(code: u8) -> PacketResult {
    Reason::from_code(code).unwrap_or(Reason::Fragment).into_packet_result()
}

#[inline(always)]
fn verdict_of_reason(reason: Reason) -> Verdict {
    Verdict { reason_code: reason as u8, flags: 0, policy_id: 0, rule_index: NO_RULE }
}
