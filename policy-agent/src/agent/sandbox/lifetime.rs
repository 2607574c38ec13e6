//! What a sandbox keeps from its creation to its end, across changes of its policy: the traffic
//! token, its lease, the counters of the egress proxy, and a cancellation token for its end.
//!
//! While the agent runs, a lease follows the monotonic clock, so that a jump of the wall clock
//! neither ends nor extends it. The state file stores its end by the wall clock for the next agent.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{hex::random_hex, sandbox::proxy_counters::SandboxProxyCounters},
    policy::{SecretString, ValidationError},
};

/// Number of random bytes in a token.
const TOKEN_BYTES: usize = 20;

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

/// A lifetime as stored in the state file. Fields that an older agent did not write start anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedLifetime {
    /// The traffic token.
    #[serde(rename = "token", default, serialize_with = "serialize_secret")]
    pub traffic_token: Option<SecretString>,
    /// When the sandbox was created.
    #[serde(rename = "started", default)]
    pub started_at: Option<Timestamp>,
    /// The lease, if there is one.
    #[serde(default)]
    pub lease: Option<PersistedLease>,
}

/// The end of a lease by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseDeadline {
    wall: Timestamp,
    monotonic: Instant,
}

/// The lifetime of one sandbox.
#[derive(Debug)]
pub struct SandboxLifetime {
    traffic_token: SecretString,
    cancellation: CancellationToken,
    started_at: Timestamp,
    lease: Option<ActiveLease>,
    proxy_counters: Arc<SandboxProxyCounters>,
}

#[derive(Debug)]
struct ActiveLease {
    metadata: SandboxMetadata,
    idempotency: Option<IdempotencyRecord>,
    deadline: Mutex<LeaseDeadline>,
}

impl SandboxLifetime {
    /// Creates a lifetime with an unguessable token and without a lease.
    ///
    /// # Errors
    /// The kernel provides no random bytes.
    pub fn without_lease() -> Result<Self> {
        Ok(Self::with_token(SecretString::new(random_hex::<TOKEN_BYTES>()?)))
    }

    /// Creates a lifetime with an unguessable token and a lease.
    ///
    /// # Errors
    /// The kernel provides no random bytes.
    pub fn with_lease(
        metadata: SandboxMetadata,
        idempotency: Option<IdempotencyRecord>,
        deadline: LeaseDeadline,
    ) -> Result<Self> {
        let leased = ActiveLease { metadata, idempotency, deadline: Mutex::new(deadline) };
        Ok(Self { lease: Some(leased), ..Self::without_lease()? })
    }

    /// Creates a lifetime with an existing token and without a lease.
    #[must_use]
    pub fn with_token(token: SecretString) -> Self {
        let (cancellation, started_at) = (CancellationToken::new(), Timestamp::now());
        Self {
            traffic_token: token,
            cancellation,
            started_at,
            lease: None,
            proxy_counters: Arc::default(),
        }
    }

    /// Restores a lifetime from the state file.
    ///
    /// # Errors
    /// A token is missing, and the kernel provides no random bytes.
    pub fn restore(persisted: PersistedLifetime) -> Result<Self> {
        let lifetime = match persisted.traffic_token {
            Some(token) => Self::with_token(token),
            None => Self::without_lease()?,
        };
        let lease =
            persisted.lease.map(|PersistedLease { ends_at, metadata, idempotency }| ActiveLease {
                metadata,
                idempotency,
                deadline: Mutex::new(LeaseDeadline::at_wall_clock(ends_at)),
            });
        Ok(Self {
            started_at: persisted.started_at.unwrap_or(lifetime.started_at),
            lease,
            ..lifetime
        })
    }

    /// Returns this lifetime for the state file.
    #[must_use]
    pub fn to_persisted(&self) -> PersistedLifetime {
        let lease = self.lease.as_ref().map(|leased| PersistedLease {
            ends_at: leased.deadline().wall,
            metadata: leased.metadata.clone(),
            idempotency: leased.idempotency.clone(),
        });
        PersistedLifetime {
            traffic_token: Some(self.traffic_token.clone()),
            started_at: Some(self.started_at),
            lease,
        }
    }

    /// The token that clients must present at the public URLs if `allowPublicTraffic` is false.
    #[must_use]
    pub fn traffic_token(&self) -> &SecretString {
        &self.traffic_token
    }

    /// The counters of the egress proxy. They start at zero with each agent.
    #[must_use]
    pub const fn proxy_counters(&self) -> &Arc<SandboxProxyCounters> {
        &self.proxy_counters
    }

    /// When the sandbox was created.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The end of the lease by the wall clock. `None` without a lease, as for sandboxes of `apply`.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        Some(self.lease.as_ref()?.deadline().wall)
    }

    /// The end of the lease by the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.lease.as_ref()?.deadline().monotonic)
    }

    /// Data from the creator. `None` for sandboxes of `apply`.
    #[must_use]
    pub fn metadata(&self) -> Option<&SandboxMetadata> {
        Some(&self.lease.as_ref()?.metadata)
    }

    /// The idempotency key and request that the sandbox was created with.
    #[must_use]
    pub fn idempotency(&self) -> Option<&IdempotencyRecord> {
        self.lease.as_ref()?.idempotency.as_ref()
    }

    /// Replaces the end of the lease. Does nothing without a lease.
    pub fn renew(&self, deadline: LeaseDeadline) {
        if let Some(lease) = &self.lease {
            *lease.lock() = deadline;
        }
    }

    /// Cancelled when the sandbox ends.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// Ends the sandbox. This notifies all tasks that serve it.
    pub fn end(&self) {
        self.cancellation.cancel();
    }
}

impl ActiveLease {
    fn deadline(&self) -> LeaseDeadline {
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
}

/// Serialises the token in clear text: the state file needs it.
fn serialize_secret<S: Serializer>(
    token: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    token.as_ref().map(SecretString::reveal).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased_lifetime(timeout: Duration) -> SandboxLifetime {
        let metadata =
            SandboxMetadata { template_id: "base".to_owned(), ..SandboxMetadata::default() };
        SandboxLifetime::with_lease(metadata, None, LeaseDeadline::after(timeout).expect("short"))
            .expect("random")
    }

    #[test]
    fn tokens_differ_and_do_not_show() {
        let (one, other) = (
            SandboxLifetime::without_lease().expect("random"),
            SandboxLifetime::without_lease().expect("random"),
        );
        assert_ne!(one.traffic_token(), other.traffic_token());
        assert_eq!(one.traffic_token().reveal().len(), 2 * TOKEN_BYTES);
        assert!(!format!("{one:?}").contains(one.traffic_token().reveal()));
    }

    #[test]
    fn an_end_cancels_the_token() {
        let lifetime = SandboxLifetime::without_lease().expect("random");
        assert!(!lifetime.cancellation().is_cancelled());
        lifetime.end();
        assert!(lifetime.cancellation().is_cancelled());
    }

    #[test]
    fn renewing_without_a_lease_adds_none() {
        let lifetime = SandboxLifetime::without_lease().expect("random");
        lifetime.renew(LeaseDeadline::after(Duration::from_secs(1)).expect("short"));
        assert_eq!(
            (lifetime.ends_at(), lifetime.deadline(), lifetime.metadata()),
            (None, None, None)
        );
    }

    #[test]
    fn a_lifetime_is_restored_as_it_was_persisted() {
        let lifetime = leased_lifetime(Duration::from_secs(60));
        let persisted = serde_json::to_string(&lifetime.to_persisted()).expect("serialises");
        let again = SandboxLifetime::restore(serde_json::from_str(&persisted).expect("reads"))
            .expect("resumed");
        assert_eq!(again.to_persisted(), lifetime.to_persisted());
        assert_eq!(again.traffic_token(), lifetime.traffic_token());
        let left = again.deadline().expect("a lease").duration_since(Instant::now());
        assert!((59..=60).contains(&left.as_secs()), "{left:?}");
    }

    #[test]
    fn a_lease_that_expired_while_no_agent_ran_is_over() {
        let mut persisted = leased_lifetime(Duration::from_secs(60)).to_persisted();
        persisted.lease.as_mut().expect("a lease").ends_at = Timestamp::UNIX_EPOCH;
        let lifetime = SandboxLifetime::restore(persisted).expect("resumed");
        assert!(lifetime.deadline().expect("a lease") <= Instant::now());
    }

    #[test]
    fn a_renewed_lease_ends_from_now() {
        let lifetime = leased_lifetime(Duration::ZERO);
        let deadline = LeaseDeadline::after(Duration::from_secs(60)).expect("short");
        lifetime.renew(deadline);
        assert_eq!(lifetime.ends_at(), Some(deadline.ends_at()));
        assert!(lifetime.deadline().expect("a lease") > Instant::now());
    }

    #[test]
    fn a_deadline_that_never_comes_is_rejected() {
        let error = LeaseDeadline::after(Duration::MAX).expect_err("for ever");
        assert_eq!(error.field, "timeout");
    }
}
