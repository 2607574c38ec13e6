//! Authentication by API key: `X-API-Key` or `Authorization: Bearer`, required over TCP.

use std::sync::{Arc, PoisonError, RwLock};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method,
        header::{AUTHORIZATION, WWW_AUTHENTICATE},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::{Problem, access_roles, client_limiter::ClientPermit};
use crate::config::{ApiKeyConfig, ApiRole};

const KEY_HEADER: &str = "x-api-key";
const BEARER_SCHEME_NAME: &str = "Bearer";
/// Maximum number of logged characters of a path.
const MAX_LOGGED_PATH: usize = 256;

/// The accepted keys, stored as digests.
#[derive(Default)]
pub struct ApiKeys(Vec<AcceptedKey>);

struct AcceptedKey {
    name: String,
    role: ApiRole,
    digest: [u8; 32],
}

impl ApiKeys {
    /// Accepts exactly these keys.
    #[must_use]
    pub fn new(keys: &[ApiKeyConfig]) -> Self {
        let accepted = |ApiKeyConfig { name, role, key }: &ApiKeyConfig| AcceptedKey {
            name: name.clone(),
            role: *role,
            digest: key_digest(key.as_bytes()),
        };
        Self(keys.iter().map(accepted).collect())
    }

    /// Accepts a token that may read.
    #[must_use]
    pub fn for_token(token: &str) -> Self {
        let name = "metrics.token".to_owned();
        Self::new(&[ApiKeyConfig { name, role: ApiRole::Read, key: token.to_owned() }])
    }

    /// Whether a key is accepted.
    #[cfg(test)]
    pub(super) fn accepts(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// Finds an accepted key. The comparison runs in constant time over the digests of all keys, so
    /// that its duration reveals nothing about them.
    fn find(&self, key: &[u8]) -> Option<&AcceptedKey> {
        let given = key_digest(key);
        let mut found = u32::MAX;
        for (index, known) in (0..).zip(&self.0) {
            found.conditional_assign(&index, known.digest.ct_eq(&given));
        }
        self.0.get(usize::try_from(found).ok()?)
    }

    /// The accepted key that `X-API-Key` or `Authorization` holds.
    fn authenticate(&self, headers: &HeaderMap) -> Option<&AcceptedKey> {
        let key = headers.get(KEY_HEADER).map(HeaderValue::as_bytes);
        let token = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer_token);
        [key, token].into_iter().flatten().find_map(|key| self.find(key))
    }
}

/// The keys in force. Clones share them. A reload of the configuration replaces them.
#[derive(Clone)]
pub struct CurrentApiKeys(Arc<RwLock<Option<Arc<ApiKeys>>>>);

impl CurrentApiKeys {
    /// Starts with these keys. With `None`, no key is required.
    #[must_use]
    pub fn new(keys: Option<ApiKeys>) -> Self {
        Self(Arc::new(RwLock::new(keys.map(Arc::new))))
    }

    /// Replaces the keys from the next request on.
    pub fn replace(&self, keys: Option<ApiKeys>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = keys.map(Arc::new);
    }

    fn get(&self) -> Option<Arc<ApiKeys>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which requests [`require_key`] lets through.
pub(super) struct KeyGuard {
    /// The accepted keys.
    pub keys: CurrentApiKeys,
    /// Whether a path needs no key.
    pub is_public: fn(&str) -> bool,
    /// The error text for a request without a valid key.
    pub advice: &'static str,
}

/// Middleware that answers 401 to a request without a valid key, except on public paths, and 403
/// if the key's role does not permit the request.
pub(super) async fn require_key(
    State(guard): State<Arc<KeyGuard>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(keys) = guard.keys.get() else { return next.run(request).await };
    let Some(key) = keys.authenticate(request.headers()) else {
        if (guard.is_public)(request.uri().path()) {
            return next.run(request).await;
        }
        let problem = Problem::unauthorized(guard.advice);
        return ([(WWW_AUTHENTICATE, BEARER_SCHEME_NAME)], problem).into_response();
    };
    if let Some(permit) = request.extensions().get::<ClientPermit>() {
        permit.mark_authenticated();
    }
    if !access_roles::permits(key.role, request.method(), request.uri().path()) {
        return refuse_role(key).into_response();
    }
    run_and_log(key, request, next).await
}

fn refuse_role(AcceptedKey { name, role, .. }: &AcceptedKey) -> Problem {
    let needed = if *role == ApiRole::Read { "sandboxes or admin" } else { "admin" };
    Problem::forbidden(format!(
        "the key {name:?} has the role {role}, which does not permit this; use a key with the role \
         {needed}"
    ))
}

/// Answers a request, and logs who changed something.
async fn run_and_log(key: &AcceptedKey, request: Request, next: Next) -> Response {
    if access_roles::is_reading(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let method: Method = request.method().clone();
    let path: String = request.uri().path().chars().take(MAX_LOGGED_PATH).collect();
    let response = next.run(request).await;
    tracing::info!(key = key.name, %method, ?path, status = response.status().as_u16(), "API request");
    response
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

    fn api_keys(keys: &[(&str, ApiRole)]) -> ApiKeys {
        let config = |(key, role): &(&str, ApiRole)| ApiKeyConfig {
            name: format!("the {key}"),
            role: *role,
            key: (*key).to_owned(),
        };
        ApiKeys::new(&keys.iter().map(config).collect::<Vec<_>>())
    }

    #[test]
    fn only_whole_keys_are_accepted() {
        let keys = api_keys(&[("first", ApiRole::Admin), ("second", ApiRole::Read)]);
        let found = |key: &[u8]| keys.find(key).map(|key| (key.name.as_str(), key.role));
        assert_eq!(found(b"first"), Some(("the first", ApiRole::Admin)));
        assert_eq!(found(b"second"), Some(("the second", ApiRole::Read)));
        for wrong in [&b""[..], b"firs", b"firstsecond"] {
            assert_eq!(found(wrong), None);
        }
        assert!(ApiKeys::default().find(b"").is_none());
    }

    #[test]
    fn a_key_is_sent_in_one_of_two_fields() {
        let keys = api_keys(&[("first", ApiRole::Admin)]);
        let authorizes = |name: &'static str, value: &'static str| {
            let headers = HeaderMap::from_iter([(
                name.try_into().expect("a name"),
                HeaderValue::from_static(value),
            )]);
            keys.authenticate(&headers).is_some()
        };
        assert!(authorizes("x-api-key", "first") && authorizes("authorization", "Bearer first"));
        assert!(authorizes("authorization", "bearer  first "));
        for wrong in ["Bearer", "Bearer ", "Bearer second", "Bearerfirst", "Basic first", "first"] {
            assert!(!authorizes("authorization", wrong), "{wrong}");
        }
        assert!(!authorizes("x-api-key", "Bearer first") && !authorizes("cookie", "first"));
    }
}
