//! What a sandbox has from its creation to its end, whatever becomes of its policy meanwhile: the
//! traffic token, its lease, what the egress proxy counts, and word of its end for whoever serves it.
//!
//! A lease runs by the monotonic clock while the agent does, so that a jump of the wall clock
//! neither ends nor prolongs it. The state file tells the next agent its end by the wall clock.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::Tally,
    policy::{Invalid, Secret},
};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 20;

/// What the creator of a sandbox said about it. It means nothing to the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The template that it is made of.
    pub template_id: String,
    /// The creator's own notes.
    pub metadata: BTreeMap<String, String>,
}

/// What makes a repeated creation the same one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// Digest of the key.
    pub key: String,
    /// Digest of what was wished for.
    pub wish: String,
}

/// What makes a sandbox end by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// When, by the wall clock.
    pub ends: Timestamp,
    /// What its creator said.
    pub origin: Origin,
    /// The key that it was created with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
}

/// A life as the state file keeps it. What an older agent's file lacks is begun anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The traffic token.
    #[serde(default, serialize_with = "reveal")]
    pub token: Option<Secret>,
    /// When it was created.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// Its lease, if it has one.
    #[serde(default)]
    pub lease: Option<Lease>,
}

/// The end of a lease by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    wall: Timestamp,
    monotonic: Instant,
}

/// One sandbox's life.
#[derive(Debug)]
pub struct Life {
    token: Secret,
    end: CancellationToken,
    started: Timestamp,
    leased: Option<Leased>,
    tally: Arc<Tally>,
}

#[derive(Debug)]
struct Leased {
    origin: Origin,
    idempotency: Option<Idempotency>,
    term: Mutex<Term>,
}

impl Life {
    /// A new life, with a token that nobody can guess, and without a lease.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn begin() -> Result<Self> {
        Ok(Self::with_token(Secret::new(random_hex::<TOKEN_BYTES>()?)))
    }

    /// A new life that ends with its lease.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn leased(origin: Origin, idempotency: Option<Idempotency>, term: Term) -> Result<Self> {
        let leased = Leased { origin, idempotency, term: Mutex::new(term) };
        Ok(Self { leased: Some(leased), ..Self::begin()? })
    }

    /// A life that goes on with the token it had.
    #[must_use]
    pub fn with_token(token: Secret) -> Self {
        let (end, started) = (CancellationToken::new(), Timestamp::now());
        Self { token, end, started, leased: None, tally: Arc::default() }
    }

    /// A life that goes on as it was kept.
    ///
    /// # Errors
    /// A token is missing, and the kernel has no random numbers.
    pub fn resume(kept: Kept) -> Result<Self> {
        let life = match kept.token {
            Some(token) => Self::with_token(token),
            None => Self::begin()?,
        };
        let leased = kept.lease.map(|Lease { ends, origin, idempotency }| Leased {
            origin,
            idempotency,
            term: Mutex::new(Term::at(ends)),
        });
        Ok(Self { started: kept.started.unwrap_or(life.started), leased, ..life })
    }

    /// This life for the state file.
    #[must_use]
    pub fn kept(&self) -> Kept {
        let lease = self.leased.as_ref().map(|leased| Lease {
            ends: leased.term().wall,
            origin: leased.origin.clone(),
            idempotency: leased.idempotency.clone(),
        });
        Kept { token: Some(self.token.clone()), started: Some(self.started), lease }
    }

    /// What a client of a private public URL has to show.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// What the egress proxy counts for it. Begins anew with the agent.
    #[must_use]
    pub const fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// When the sandbox was created.
    #[must_use]
    pub fn started(&self) -> Timestamp {
        self.started
    }

    /// When its lease ends; `None`: it has none, as what `apply` made.
    #[must_use]
    pub fn ends(&self) -> Option<Timestamp> {
        Some(self.leased.as_ref()?.term().wall)
    }

    /// The same by the monotonic clock.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.leased.as_ref()?.term().monotonic)
    }

    /// What its creator said; `None` for what `apply` made.
    #[must_use]
    pub fn origin(&self) -> Option<&Origin> {
        Some(&self.leased.as_ref()?.origin)
    }

    /// The key that it was created with.
    #[must_use]
    pub fn idempotency(&self) -> Option<&Idempotency> {
        self.leased.as_ref()?.idempotency.as_ref()
    }

    /// Its lease ends then. A life without a lease stays without.
    pub fn renew(&self, term: Term) {
        if let Some(leased) = &self.leased {
            *leased.lock() = term;
        }
    }

    /// Is cancelled when the sandbox is no more.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.end
    }

    /// The sandbox is no more: everybody who serves it learns it.
    pub fn end(&self) {
        self.end.cancel();
    }
}

impl Leased {
    fn term(&self) -> Term {
        *self.lock()
    }

    /// A term is replaced whole.
    fn lock(&self) -> MutexGuard<'_, Term> {
        self.term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Term {
    /// A term that begins now.
    ///
    /// # Errors
    /// It ends when no clock counts any more.
    pub fn lasting(timeout: Duration) -> Result<Self, Invalid> {
        let signed = SignedDuration::try_from(timeout).ok();
        let wall = signed.and_then(|timeout| Timestamp::now().checked_add(timeout).ok());
        let monotonic = Instant::now().checked_add(timeout);
        match (wall, monotonic) {
            (Some(wall), Some(monotonic)) => Ok(Self { wall, monotonic }),
            _ => {
                let seconds = timeout.as_secs().to_string();
                Err(Invalid::entry("timeout", seconds, "so many seconds are too long"))
            }
        }
    }

    /// A term that ends when the wall clock, as it goes now, shows `wall`.
    #[must_use]
    pub fn at(wall: Timestamp) -> Self {
        let now = Instant::now();
        let left = Duration::try_from(wall.duration_since(Timestamp::now())).unwrap_or_default();
        Self { wall, monotonic: now.checked_add(left).unwrap_or(now) }
    }

    /// Its end by the wall clock.
    #[must_use]
    pub const fn ends(&self) -> Timestamp {
        self.wall
    }
}

/// `N` random bytes in hexadecimal digits.
///
/// # Errors
/// The kernel has no random numbers.
pub fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the kernel has no random numbers")?;
    Ok(Hex(&bytes).to_string())
}

/// Bytes in hexadecimal digits.
pub(crate) struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The state file holds the token.
fn reveal<S: Serializer>(token: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    token.as_ref().map(Secret::reveal).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased(timeout: Duration) -> Life {
        let origin = Origin { template_id: "base".to_owned(), ..Origin::default() };
        Life::leased(origin, None, Term::lasting(timeout).expect("short")).expect("random")
    }

    #[test]
    fn tokens_differ_and_do_not_show() {
        let (one, other) = (Life::begin().expect("random"), Life::begin().expect("random"));
        assert_ne!(one.token(), other.token());
        assert_eq!(one.token().reveal().len(), 2 * TOKEN_BYTES);
        assert!(!format!("{one:?}").contains(one.token().reveal()));
    }

    #[test]
    fn an_end_is_heard_of() {
        let life = Life::begin().expect("random");
        assert!(!life.ended().is_cancelled());
        life.end();
        assert!(life.ended().is_cancelled());
    }

    #[test]
    fn what_has_no_lease_gets_none() {
        let life = Life::begin().expect("random");
        life.renew(Term::lasting(Duration::from_secs(1)).expect("short"));
        assert_eq!((life.ends(), life.deadline(), life.origin()), (None, None, None));
    }

    #[test]
    fn a_life_goes_on_as_it_was_kept() {
        let life = leased(Duration::from_secs(60));
        let kept = serde_json::to_string(&life.kept()).expect("serialises");
        let again = Life::resume(serde_json::from_str(&kept).expect("reads")).expect("resumed");
        assert_eq!(again.kept(), life.kept());
        assert_eq!(again.token(), life.token());
        let left = again.deadline().expect("a lease").duration_since(Instant::now());
        assert!((59..=60).contains(&left.as_secs()), "{left:?}");
    }

    #[test]
    fn a_lease_that_ran_out_while_no_agent_ran_is_over() {
        let mut kept = leased(Duration::from_secs(60)).kept();
        kept.lease.as_mut().expect("a lease").ends = Timestamp::UNIX_EPOCH;
        let life = Life::resume(kept).expect("resumed");
        assert!(life.deadline().expect("a lease") <= Instant::now());
    }

    #[test]
    fn a_renewed_lease_ends_from_now() {
        let life = leased(Duration::ZERO);
        let term = Term::lasting(Duration::from_secs(60)).expect("short");
        life.renew(term);
        assert_eq!(life.ends(), Some(term.ends()));
        assert!(life.deadline().expect("a lease") > Instant::now());
    }

    #[test]
    fn a_term_that_never_ends_is_refused() {
        let error = Term::lasting(Duration::MAX).expect_err("for ever");
        assert_eq!(error.field, "timeout");
    }
}
