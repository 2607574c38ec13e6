//! `X-API-Key` and `Authorization: Bearer`: who may use what is served over TCP.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::{Problem, guests::Guest};

const HEADER: &str = "x-api-key";
const SCHEME: &str = "Bearer";

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

    /// Whether one of the fields in which keys are sent holds one.
    fn are_met_by(&self, headers: &HeaderMap) -> bool {
        let key = headers.get(HEADER).map(HeaderValue::as_bytes);
        let token = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
        [key, token].into_iter().flatten().any(|key| self.accept(key))
    }
}

/// Who may pass.
pub struct Guard {
    /// Their keys.
    pub keys: Keys,
    /// The path that is for everyone.
    pub open: Option<&'static str>,
    /// What whoever has no key is told.
    pub advice: &'static str,
}

/// Lets a request pass that has a key, or that is for everyone.
pub async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if guard.keys.are_met_by(request.headers()) {
        if let Some(guest) = request.extensions().get::<Guest>() {
            guest.is_known();
        }
        return next.run(request).await;
    }
    if guard.open == Some(request.uri().path()) {
        return next.run(request).await;
    }
    ([(WWW_AUTHENTICATE, SCHEME)], Problem::unauthorized(guard.advice)).into_response()
}

/// The token of `Authorization: Bearer` (RFC 6750, 2.1; the scheme in any case).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    scheme.eq_ignore_ascii_case(SCHEME.as_bytes()).then_some(token)
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

    #[test]
    fn a_key_is_sent_in_one_of_two_fields() {
        let keys = Keys::new(&["first".to_owned()]);
        let met = |name: &'static str, value: &'static str| {
            keys.are_met_by(&HeaderMap::from_iter([(
                name.try_into().expect("a name"),
                HeaderValue::from_static(value),
            )]))
        };
        assert!(met("x-api-key", "first") && met("authorization", "Bearer first"));
        assert!(met("authorization", "bearer  first "));
        for wrong in ["Bearer", "Bearer ", "Bearer second", "Bearerfirst", "Basic first", "first"] {
            assert!(!met("authorization", wrong), "{wrong}");
        }
        assert!(!met("x-api-key", "Bearer first") && !met("cookie", "first"));
    }
}
