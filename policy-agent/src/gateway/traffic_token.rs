//! The traffic token of a private public URL. The gateway removes it from a request, so that the
//! service never sees it.

use hyper::{
    Request, Uri,
    header::{self, HeaderMap, HeaderValue},
};
use subtle::{Choice, ConstantTimeEq as _};

use super::tcp_tunnel;
use crate::policy::SecretString;

/// The name of the header, query parameter and cookie that may contain the token.
pub(super) const TOKEN_NAME: &str = "e2b-traffic-access-token";

/// All tokens of a request.
#[derive(Debug, Default)]
pub(super) struct PresentedTokens {
    header: Vec<SecretString>,
    query: Vec<SecretString>,
    cookies: Vec<SecretString>,
    proxy_password: Vec<SecretString>,
}

impl PresentedTokens {
    /// Removes all tokens from a request, valid or not, from every place they may be in.
    pub(super) fn strip_from<B>(request: &mut Request<B>) -> Self {
        let mut presented = Self::default();
        strip_header(request.headers_mut(), &mut presented.header);
        strip_cookies(request.headers_mut(), &mut presented.cookies);
        presented.proxy_password.extend(tcp_tunnel::basic_password(request.headers()));
        // It is meant for the gateway, whether it holds a token or not (RFC 9110, 11.7.2).
        request.headers_mut().remove(header::PROXY_AUTHORIZATION);
        if let Some(uri) = strip_query(request.uri(), &mut presented.query) {
            *request.uri_mut() = uri;
        }
        // A page opened with the token in its URL sends that URL as the referer when it loads
        // resources.
        let mut referers = request.headers().get_all(header::REFERER).iter();
        if referers.any(|referer| contains_ignore_case(referer.as_bytes(), TOKEN_NAME.as_bytes())) {
            request.headers_mut().remove(header::REFERER);
        }
        presented
    }

    /// Whether the request presents this token. The comparison takes constant time and reveals only
    /// the token's length.
    #[must_use]
    pub(super) fn contains(&self, token: &SecretString) -> bool {
        self.contains_outside_cookies(token) | any_equals(&self.cookies, token)
    }

    /// Like [`Self::contains`], but without cookies, which browsers add to requests from any page.
    #[must_use]
    pub(super) fn contains_outside_cookies(&self, token: &SecretString) -> bool {
        any_equals(&self.header, token) | self.query_contains(token)
    }

    /// Whether the request may open a tunnel to the sandbox with this token. The comparison takes
    /// constant time.
    #[must_use]
    pub(super) fn permits_tunnel(&self, token: &SecretString) -> bool {
        any_equals(&self.header, token) | any_equals(&self.proxy_password, token)
    }

    /// Whether the token was in the query.
    #[must_use]
    pub(super) fn query_contains(&self, token: &SecretString) -> bool {
        any_equals(&self.query, token)
    }
}

fn any_equals(presented: &[SecretString], token: &SecretString) -> bool {
    let token = token.reveal().as_bytes();
    let equals = |candidate: &SecretString| candidate.reveal().as_bytes().ct_eq(token);
    presented.iter().fold(Choice::from(0), |found, candidate| found | equals(candidate)).into()
}

fn strip_header(headers: &mut HeaderMap, presented: &mut Vec<SecretString>) {
    let values = headers.get_all(TOKEN_NAME).iter().filter_map(|value| value.to_str().ok());
    presented.extend(values.map(secret));
    headers.remove(TOKEN_NAME);
}

fn strip_cookies(headers: &mut HeaderMap, presented: &mut Vec<SecretString>) {
    let has = |value: &HeaderValue| contains_ignore_case(value.as_bytes(), TOKEN_NAME.as_bytes());
    if !headers.get_all(header::COOKIE).iter().any(has) {
        return;
    }
    let header::Entry::Occupied(entry) = headers.entry(header::COOKIE) else { return };
    let (_, values) = entry.remove_entry_mult();
    let mut kept = Vec::new();
    for value in values {
        // A value that is not text could hide the token from this parser but not from the
        // service's.
        let Ok(text) = value.to_str() else { continue };
        for pair in text.split(';').map(str::trim) {
            match pair.split_once('=') {
                Some((name, token)) if name.trim() == TOKEN_NAME => {
                    presented.push(secret(token.trim()))
                }
                _ if pair.contains(TOKEN_NAME) || pair.is_empty() => {}
                _ => kept.push(pair.to_owned()),
            }
        }
    }
    if let Ok(value) = HeaderValue::try_from(kept.join("; "))
        && !value.is_empty()
    {
        headers.insert(header::COOKIE, value);
    }
}

/// The URI without the parameter, or `None` if it does not contain it.
fn strip_query(uri: &Uri, presented: &mut Vec<SecretString>) -> Option<Uri> {
    let query = uri.query().filter(|query| query.contains(TOKEN_NAME))?;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((TOKEN_NAME, token)) => presented.push(secret(token)),
            _ if pair == TOKEN_NAME => {}
            _ => kept.push(pair),
        }
    }
    let path = match kept.as_slice() {
        [] => uri.path().to_owned(),
        kept => format!("{}?{}", uri.path(), kept.join("&")),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).ok()
}

fn secret(text: &str) -> SecretString {
    SecretString::new(text.to_owned())
}

fn contains_ignore_case(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> SecretString {
        SecretString::new(text.to_owned())
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().uri(uri);
        let add = |request: http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        headers.iter().fold(request, add).body(()).expect("a request")
    }

    #[test]
    fn a_token_is_found_in_header_query_and_cookie_and_stripped_from_each() {
        for (uri, headers) in [
            ("/a?b=1", vec![(TOKEN_NAME, "t0k")]),
            ("/a?e2b-traffic-access-token=t0k&b=1", vec![]),
            ("/a?b=1&e2b-traffic-access-token=t0k", vec![]),
            ("/a?b=1", vec![("cookie", "x=1; e2b-traffic-access-token=t0k; y=2")]),
            ("/a?b=1", vec![(TOKEN_NAME, "wrong"), ("cookie", "e2b-traffic-access-token=t0k")]),
        ] {
            let mut request = request(uri, &headers);
            let presented = PresentedTokens::strip_from(&mut request);
            assert!(presented.contains(&token("t0k")), "{uri} {headers:?}");
            assert!(!presented.contains(&token("t0k2")) && !presented.contains(&token("")));
            assert_eq!(request.uri(), "/a?b=1");
            assert!(!format!("{request:?}").contains("t0k"), "{request:?}");
        }
    }

    #[test]
    fn the_source_of_a_token_is_known() {
        let presented = |uri: &str, headers: &[(&str, &str)]| {
            let presented = PresentedTokens::strip_from(&mut request(uri, headers));
            let token = token("t0k");
            (
                presented.contains(&token),
                presented.contains_outside_cookies(&token),
                presented.query_contains(&token),
            )
        };
        let cookie = [("cookie", "e2b-traffic-access-token=t0k")];
        assert_eq!(presented("/?e2b-traffic-access-token=t0k", &cookie), (true, true, true));
        assert_eq!(presented("/", &[(TOKEN_NAME, "t0k")]), (true, true, false));
        assert_eq!(presented("/?e2b-traffic-access-token=x", &cookie), (true, false, false));
    }

    #[test]
    fn what_else_is_there_stays() {
        let mut request = request(
            "http://h/a?e2b-traffic-access-token=t",
            &[("cookie", "x=1; e2b-traffic-access-token=t"), ("cookie", "y=2"), ("referer", "r")],
        );
        PresentedTokens::strip_from(&mut request);
        assert_eq!(request.uri(), "http://h/a");
        assert_eq!(request.headers()["cookie"], "x=1; y=2");
        assert_eq!(request.headers()["referer"], "r");
    }

    #[test]
    fn no_referer_names_it_not_even_a_second_one() {
        let named = "http://h/?e2b-traffic-access-token=t";
        let mut request = request("/", &[("referer", "http://h/"), ("referer", named)]);
        PresentedTokens::strip_from(&mut request);
        assert!(request.headers().is_empty());
    }

    #[test]
    fn no_token_matches_nothing() {
        let mut request = request("/", &[("referer", "http://h/?e2b-traffic-access-token=t")]);
        assert!(!PresentedTokens::strip_from(&mut request).contains(&token("t")));
        assert!(request.headers().is_empty());
    }
}
