//! The traffic tokens that a sandbox has beside its own: they expire, so that an operator can
//! replace them one after another.

use std::{
    sync::{PoisonError, RwLock, RwLockReadGuard},
    time::Instant,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::lease::LeaseDeadline;
use crate::policy::SecretString;

/// Maximum number of such tokens per sandbox.
pub(crate) const MAX_ISSUED_TOKENS: usize = 64;

/// A token that expires.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// The token.
    pub token: SecretString,
    /// When it expires.
    pub deadline: LeaseDeadline,
}

/// A token as stored in the state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistedToken {
    /// The token.
    #[serde(serialize_with = "serialize_secret")]
    pub token: SecretString,
    /// When it expires, by the wall clock.
    #[serde(rename = "ends")]
    pub ends_at: Timestamp,
}

impl From<&IssuedToken> for PersistedToken {
    fn from(issued: &IssuedToken) -> Self {
        Self { token: issued.token.clone(), ends_at: issued.deadline.ends_at() }
    }
}

/// Serialises a token in clear text: the state file needs it.
fn serialize_secret<S: Serializer>(token: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    token.reveal().serialize(serializer)
}

/// The tokens that a sandbox has beside its own.
#[derive(Debug, Default)]
pub(super) struct IssuedTokens(RwLock<Vec<IssuedToken>>);

impl IssuedTokens {
    /// Restores the tokens from the state file.
    pub(super) fn restore(persisted: Vec<PersistedToken>) -> Self {
        let issued = persisted.into_iter().map(|PersistedToken { token, ends_at }| IssuedToken {
            token,
            deadline: LeaseDeadline::at_wall_clock(ends_at),
        });
        Self(RwLock::new(issued.collect()))
    }

    /// Adds a token, and forgets those that have expired.
    pub(super) fn add(&self, token: IssuedToken) {
        let mut tokens = self.0.write().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(is_valid);
        tokens.push(token);
    }

    /// Forgets all tokens.
    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The tokens that have not expired.
    pub(super) fn valid(&self) -> Vec<IssuedToken> {
        self.read().iter().filter(|token| is_valid(token)).cloned().collect()
    }

    /// A poisoned lock is usable: a single change cannot be left incomplete.
    fn read(&self) -> RwLockReadGuard<'_, Vec<IssuedToken>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_valid(token: &IssuedToken) -> bool {
    token.deadline.instant() > Instant::now()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn token(text: &str, lifetime: Duration) -> IssuedToken {
        let deadline = LeaseDeadline::after(lifetime).expect("short");
        IssuedToken { token: SecretString::new(text.to_owned()), deadline }
    }

    fn texts(tokens: &IssuedTokens) -> Vec<String> {
        tokens.valid().iter().map(|issued| issued.token.reveal().to_owned()).collect()
    }

    #[test]
    fn tokens_are_valid_until_they_expire() {
        let tokens = IssuedTokens::default();
        tokens.add(token("a", Duration::from_secs(60)));
        tokens.add(token("b", Duration::ZERO));
        tokens.add(token("c", Duration::from_secs(60)));
        assert_eq!(texts(&tokens), ["a", "c"]);
        assert_eq!(tokens.read().len(), 2, "the expired one is forgotten");
        assert!(!format!("{tokens:?}").contains("\"a\""));
    }

    #[test]
    fn tokens_are_restored_with_what_is_left_of_their_time() {
        let tokens = IssuedTokens::default();
        tokens.add(token("a", Duration::from_secs(60)));
        let mut persisted: Vec<_> = tokens.valid().iter().map(PersistedToken::from).collect();
        let text = serde_json::to_string(&persisted).expect("serialises");
        assert_eq!(serde_json::from_str::<Vec<PersistedToken>>(&text).expect("reads"), persisted);
        assert_eq!(texts(&IssuedTokens::restore(persisted.clone())), ["a"]);
        persisted[0].ends_at = Timestamp::UNIX_EPOCH;
        assert!(texts(&IssuedTokens::restore(persisted)).is_empty());
    }
}
