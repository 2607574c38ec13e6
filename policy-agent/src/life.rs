//! What a sandbox has from its creation to its end, whatever becomes of its policy meanwhile: the
//! traffic token, and word of its end for whoever serves it.

use std::fmt;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use crate::policy::Secret;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 20;

/// One sandbox's life.
#[derive(Debug)]
pub struct Life {
    token: Secret,
    end: CancellationToken,
}

impl Life {
    /// A new life, with a token that nobody can guess.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn begin() -> Result<Self> {
        Ok(Self::with_token(Secret::new(random_hex::<TOKEN_BYTES>()?)))
    }

    /// A life that goes on with the token it had.
    #[must_use]
    pub fn with_token(token: Secret) -> Self {
        Self { token, end: CancellationToken::new() }
    }

    /// What a client of a private public URL has to show.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
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

/// `N` random bytes in hexadecimal digits.
///
/// # Errors
/// The kernel has no random numbers.
pub fn random_hex<const N: usize>() -> Result<String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).context("the kernel has no random numbers")?;
    Ok(Hex(&bytes).to_string())
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
