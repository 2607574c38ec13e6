//! What a sandbox keeps from its creation to its end, across changes of its policy: the traffic
//! token, its lease, the counters of the egress proxy, and a cancellation token for its end.

use std::{borrow::Cow, sync::Arc, time::Instant};

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use super::{
    container_problem::ContainerProblem,
    issued_tokens::{IssuedToken, IssuedTokens, PersistedToken},
    lease::{ActiveLease, IdempotencyRecord, LeaseDeadline, PersistedLease, SandboxMetadata},
    proxy_counters::SandboxProxyCounters,
};
use crate::{hex::random_hex, policy::SecretString};

/// Number of random bytes in a token.
const TOKEN_BYTES: usize = 20;

/// A lifetime as stored in the state file. Fields that an older agent did not write start anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedLifetime {
    /// The traffic token.
    #[serde(rename = "token", default, serialize_with = "serialize_secret")]
    pub traffic_token: Option<SecretString>,
    /// The tokens that expire.
    #[serde(rename = "tokens", default, skip_serializing_if = "Vec::is_empty")]
    pub issued_tokens: Vec<PersistedToken>,
    /// When the sandbox was created.
    #[serde(rename = "started", default)]
    pub started_at: Option<Timestamp>,
    /// The lease, if there is one.
    #[serde(default)]
    pub lease: Option<PersistedLease>,
}

/// The lifetime of one sandbox.
#[derive(Debug)]
pub struct SandboxLifetime {
    traffic_token: SecretString,
    issued_tokens: IssuedTokens,
    cancellation: CancellationToken,
    started_at: Timestamp,
    lease: Option<ActiveLease>,
    proxy_counters: Arc<SandboxProxyCounters>,
    container_problem: ContainerProblem,
}

impl SandboxLifetime {
    /// Creates a lifetime with an unguessable token and without a lease.
    ///
    /// # Errors
    /// The kernel provides no random bytes.
    pub fn without_lease() -> Result<Self> {
        Ok(Self::with_token(random_token()?))
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
        let leased = ActiveLease::new(metadata, idempotency, deadline);
        Ok(Self { lease: Some(leased), ..Self::without_lease()? })
    }

    /// Creates a lifetime with an existing token and without a lease.
    #[must_use]
    pub fn with_token(token: SecretString) -> Self {
        let (cancellation, started_at) = (CancellationToken::new(), Timestamp::now());
        Self {
            traffic_token: token,
            issued_tokens: IssuedTokens::default(),
            cancellation,
            started_at,
            lease: None,
            proxy_counters: Arc::default(),
            container_problem: ContainerProblem::default(),
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
        Ok(Self {
            issued_tokens: IssuedTokens::restore(persisted.issued_tokens),
            started_at: persisted.started_at.unwrap_or(lifetime.started_at),
            lease: persisted.lease.map(ActiveLease::restore),
            ..lifetime
        })
    }

    /// Returns this lifetime for the state file.
    #[must_use]
    pub fn to_persisted(&self) -> PersistedLifetime {
        PersistedLifetime {
            traffic_token: Some(self.traffic_token.clone()),
            issued_tokens: self.issued_tokens.valid().iter().map(PersistedToken::from).collect(),
            started_at: Some(self.started_at),
            lease: self.lease.as_ref().map(ActiveLease::to_persisted),
        }
    }

    /// The sandbox's own token, which clients may present at the public URLs if
    /// `allowPublicTraffic` is false. It is valid as long as the sandbox exists.
    #[must_use]
    pub fn traffic_token(&self) -> &SecretString {
        &self.traffic_token
    }

    /// All tokens that are valid now, including the sandbox's own.
    pub fn valid_tokens(&self) -> impl Iterator<Item = Cow<'_, SecretString>> {
        let issued = self.issued_tokens.valid().into_iter();
        std::iter::once(Cow::Borrowed(&self.traffic_token))
            .chain(issued.map(|issued| Cow::Owned(issued.token)))
    }

    /// Adds a token that expires.
    pub(crate) fn add_token(&self, token: IssuedToken) {
        self.issued_tokens.add(token);
    }

    /// Forgets the tokens that expire.
    pub(crate) fn revoke_tokens(&self) {
        self.issued_tokens.clear();
    }

    /// The counters of the egress proxy. They start at zero with each agent.
    #[must_use]
    pub const fn proxy_counters(&self) -> &Arc<SandboxProxyCounters> {
        &self.proxy_counters
    }

    /// What is wrong with its container.
    pub(crate) const fn container_problem(&self) -> &ContainerProblem {
        &self.container_problem
    }

    /// When the sandbox was created.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The end of the lease by the wall clock. `None` without a lease, as for sandboxes of `apply`.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        Some(self.lease.as_ref()?.deadline().ends_at())
    }

    /// The end of the lease by the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.lease.as_ref()?.deadline().instant())
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
            lease.renew(deadline);
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

/// An unguessable token.
///
/// # Errors
/// The kernel provides no random bytes.
pub(crate) fn random_token() -> Result<SecretString> {
    Ok(SecretString::new(random_hex::<TOKEN_BYTES>()?))
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
    use std::time::Duration;

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
}
