//! The lease of a sandbox, at whose end the agent deletes it.
//!
//! While the agent runs, a lease follows the monotonic clock, so that a jump of the wall clock
//! neither ends nor extends it. The state file stores its end by the wall clock for the next agent.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::policy::ValidationError;

/// Data from the creator of a sandbox. The agent does not interpret it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxMetadata {
    /// The template that the sandbox is made from.
    pub template_id: String,
    /// The creator's own metadata.
    pub metadata: BTreeMap<String, String>,
}

/// Identifies repeated requests for the same creation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecord {
    /// Digest of the idempotency key.
    #[serde(rename = "key")]
    pub key_digest: String,
    /// Digest of the request.
    #[serde(rename = "wish")]
    pub request_digest: String,
}

/// A lease as stored in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedLease {
    /// The end by the wall clock.
    #[serde(rename = "ends")]
    pub ends_at: Timestamp,
    /// Data from the creator.
    #[serde(rename = "origin")]
    pub metadata: SandboxMetadata,
    /// The idempotency key and request that the sandbox was created with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<IdempotencyRecord>,
}

/// The lease of a sandbox while the agent runs.
#[derive(Debug)]
pub(super) struct ActiveLease {
    pub metadata: SandboxMetadata,
    pub idempotency: Option<IdempotencyRecord>,
    deadline: Mutex<LeaseDeadline>,
}

/// The end of a lease by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseDeadline {
    wall: Timestamp,
    monotonic: Instant,
}

impl ActiveLease {
    pub(super) const fn new(
        metadata: SandboxMetadata,
        idempotency: Option<IdempotencyRecord>,
        deadline: LeaseDeadline,
    ) -> Self {
        Self { metadata, idempotency, deadline: Mutex::new(deadline) }
    }

    /// Restores a lease from the state file.
    pub(super) fn restore(persisted: PersistedLease) -> Self {
        let PersistedLease { ends_at, metadata, idempotency } = persisted;
        Self::new(metadata, idempotency, LeaseDeadline::at_wall_clock(ends_at))
    }

    /// Returns this lease for the state file.
    pub(super) fn to_persisted(&self) -> PersistedLease {
        PersistedLease {
            ends_at: self.deadline().wall,
            metadata: self.metadata.clone(),
            idempotency: self.idempotency.clone(),
        }
    }

    /// Replaces the end.
    pub(super) fn renew(&self, deadline: LeaseDeadline) {
        *self.lock() = deadline;
    }

    pub(super) fn deadline(&self) -> LeaseDeadline {
        *self.lock()
    }

    /// A poisoned lock is usable: the deadline is replaced as a whole.
    fn lock(&self) -> MutexGuard<'_, LeaseDeadline> {
        self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseDeadline {
    /// Creates a deadline `timeout` from now.
    ///
    /// # Errors
    /// The deadline is beyond the range of a clock.
    pub fn after(timeout: Duration) -> Result<Self, ValidationError> {
        let signed = SignedDuration::try_from(timeout).ok();
        let wall = signed.and_then(|timeout| Timestamp::now().checked_add(timeout).ok());
        let monotonic = Instant::now().checked_add(timeout);
        match (wall, monotonic) {
            (Some(wall), Some(monotonic)) => Ok(Self { wall, monotonic }),
            _ => {
                let seconds = timeout.as_secs().to_string();
                Err(ValidationError::about_entry(
                    "timeout",
                    seconds,
                    "so many seconds are too long",
                ))
            }
        }
    }

    /// Creates the deadline at which the wall clock, as it is set now, shows `wall`.
    #[must_use]
    pub fn at_wall_clock(wall: Timestamp) -> Self {
        let now = Instant::now();
        let left = Duration::try_from(wall.duration_since(Timestamp::now())).unwrap_or_default();
        Self { wall, monotonic: now.checked_add(left).unwrap_or(now) }
    }

    /// The deadline by the wall clock.
    #[must_use]
    pub const fn ends_at(&self) -> Timestamp {
        self.wall
    }

    /// The deadline by the monotonic clock.
    pub(super) const fn instant(&self) -> Instant {
        self.monotonic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_never_comes_is_rejected() {
        let error = LeaseDeadline::after(Duration::MAX).expect_err("for ever");
        assert_eq!(error.field, "timeout");
    }
}
