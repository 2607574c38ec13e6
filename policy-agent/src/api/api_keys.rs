//! Authentication by API key: `X-API-Key` or `Authorization: Bearer`, required over TCP.

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

use super::{Problem, client_limiter::ClientPermit};

const KEY_HEADER: &str = "x-api-key";
const BEARER_SCHEME_NAME: &str = "Bearer";

/// The accepted keys, stored as digests.
pub struct ApiKeys {
    digests: Vec<[u8; 32]>,
}

impl ApiKeys {
    /// Accepts exactly these keys.
    #[must_use]
    pub fn new(keys: &[String]) -> Self {
        Self { digests: keys.iter().map(|key| key_digest(key.as_bytes())).collect() }
    }

    /// Returns whether `key` is accepted. The comparison runs in constant time over the digests of
    /// all keys, so that its duration reveals nothing about them.
    #[must_use]
    pub fn contains(&self, key: &[u8]) -> bool {
        let given = key_digest(key);
        let none = Choice::from(0);
        self.digests.iter().fold(none, |found, known| found | known.ct_eq(&given)).into()
    }

    /// Returns whether `X-API-Key` or `Authorization` holds an accepted key.
    fn authorize(&self, headers: &HeaderMap) -> bool {
        let key = headers.get(KEY_HEADER).map(HeaderValue::as_bytes);
        let token = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer_token);
        [key, token].into_iter().flatten().any(|key| self.contains(key))
    }
}

/// Which requests [`require_key`] lets through.
pub(super) struct KeyGuard {
    /// The accepted keys.
    pub keys: ApiKeys,
    /// A path that needs no key.
    pub public_path: Option<&'static str>,
    /// The error text for a request without a valid key.
    pub advice: &'static str,
}

/// Middleware that answers 401 to a request without a valid key, except on the public path.
pub(super) async fn require_key(
    State(guard): State<Arc<KeyGuard>>,
    request: Request,
    next: Next,
) -> Response {
    if guard.keys.authorize(request.headers()) {
        if let Some(permit) = request.extensions().get::<ClientPermit>() {
            permit.mark_authenticated();
        }
        return next.run(request).await;
    }
    if guard.public_path == Some(request.uri().path()) {
        return next.run(request).await;
    }
    ([(WWW_AUTHENTICATE, BEARER_SCHEME_NAME)], Problem::unauthorized(guard.advice)).into_response()
}

/// The token of `Authorization: Bearer` (RFC 6750, 2.1). The scheme is case-insensitive.
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(BEARER_SCHEME_NAME.len())?;
    let token = token.strip_prefix(b" ")?.trim_ascii();
    scheme.eq_ignore_ascii_case(BEARER_SCHEME_NAME.as_bytes()).then_some(token)
}

fn key_digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_keys_are_accepted() {
        let keys = ApiKeys::new(&["first".to_owned(), "second".to_owned()]);
        assert!(keys.contains(b"first") && keys.contains(b"second"));
        assert!(!keys.contains(b"") && !keys.contains(b"firs") && !keys.contains(b"firstsecond"));
        assert!(!ApiKeys::new(&[]).contains(b""));
    }

    #[test]
    fn a_key_is_sent_in_one_of_two_fields() {
        let keys = ApiKeys::new(&["first".to_owned()]);
        let authorizes = |name: &'static str, value: &'static str| {
            keys.authorize(&HeaderMap::from_iter([(
                name.try_into().expect("a name"),
                HeaderValue::from_static(value),
            )]))
        };
        assert!(authorizes("x-api-key", "first") && authorizes("authorization", "Bearer first"));
        assert!(authorizes("authorization", "bearer  first "));
        for wrong in ["Bearer", "Bearer ", "Bearer second", "Bearerfirst", "Basic first", "first"] {
            assert!(!authorizes("authorization", wrong), "{wrong}");
        }
        assert!(!authorizes("x-api-key", "Bearer first") && !authorizes("cookie", "first"));
    }
}
