//! Why a server of a name with a rule cannot be used.

use std::fmt;

use policy_common::reason::Reason;

/// A failure that the sandbox is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OriginFailure {
    /// The reason.
    pub reason: Reason,
    /// What exactly has failed.
    pub detail: String,
}

impl OriginFailure {
    /// The certificate is not accepted.
    pub(super) const fn not_verified(detail: String) -> Self {
        Self { reason: Reason::OriginNotVerified, detail }
    }

    /// The server ended the connection, or does not speak TLS.
    pub(super) fn broke_off(detail: &dyn fmt::Display) -> Self {
        Self { reason: Reason::ServerBrokeOff, detail: detail.to_string() }
    }
}
