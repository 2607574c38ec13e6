//! `X-API-Key`: who may use the API over TCP.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::Problem;

const HEADER: &str = "x-api-key";

/// The keys that are accepted.
pub struct Keys {
    digests: Vec<[u8; 32]>,
}

impl Keys {
    /// Accepts these.
    #[must_use]
    pub fn new(keys: &[String]) -> Self {
        Self { digests: keys.iter().map(|key| digest(key.as_bytes())).collect() }
    }

    /// Whether a key is one of them. How long this takes says nothing about them: digests are
    /// compared, in constant time, and all of them.
    #[must_use]
    pub fn accept(&self, key: &[u8]) -> bool {
        let given = digest(key);
        let none = Choice::from(0);
        self.digests.iter().fold(none, |found, known| found | known.ct_eq(&given)).into()
    }
}

/// Lets a request pass that has a key, or that only asks whether the agent lives.
pub async fn check(State(keys): State<Arc<Keys>>, request: Request, next: Next) -> Response {
    let key = request.headers().get(HEADER);
    if request.uri().path() == "/health" || key.is_some_and(|key| keys.accept(key.as_bytes())) {
        return next.run(request).await;
    }
    Problem::unauthorized().into_response()
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_are_accepted() {
        let keys = Keys::new(&["first".to_owned(), "second".to_owned()]);
        assert!(keys.accept(b"first") && keys.accept(b"second"));
        assert!(!keys.accept(b"") && !keys.accept(b"firs") && !keys.accept(b"firstsecond"));
        assert!(!Keys::new(&[]).accept(b""));
    }
}
