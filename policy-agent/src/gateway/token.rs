//! The traffic token of a private public URL: found in a request, and taken out of it, so that the
//! service inside never sees it.

use hyper::{
    Request, Uri,
    header::{self, HeaderMap, HeaderValue},
};
use subtle::{Choice, ConstantTimeEq as _};

use crate::policy::Secret;

/// The header, the query parameter and the cookie that may hold it.
pub const NAME: &str = "e2b-traffic-access-token";

/// What a request showed.
#[derive(Debug, Default)]
pub struct Shown {
    header: Vec<Secret>,
    query: Vec<Secret>,
    cookies: Vec<Secret>,
}

impl Shown {
    /// Takes all tokens out of a request, right ones or not, wherever they stand.
    pub fn take<B>(request: &mut Request<B>) -> Self {
        let mut shown = Self::default();
        take_header(request.headers_mut(), &mut shown.header);
        take_cookies(request.headers_mut(), &mut shown.cookies);
        if let Some(uri) = without_parameter(request.uri(), &mut shown.query) {
            *request.uri_mut() = uri;
        }
        // A page that was opened with the token in its URL names it in what it loads.
        let mut referers = request.headers().get_all(header::REFERER).iter();
        if referers.any(|referer| contains(referer.as_bytes(), NAME.as_bytes())) {
            request.headers_mut().remove(header::REFERER);
        }
        shown
    }

    /// Whether one of them is the token. The time this takes tells nothing about it but its length.
    #[must_use]
    pub fn proves(&self, token: &Secret) -> bool {
        self.proves_itself(token) | is_among(&self.cookies, token)
    }

    /// The same without cookies, which browsers add to what any page asks for.
    #[must_use]
    pub fn proves_itself(&self, token: &Secret) -> bool {
        is_among(&self.header, token) | self.is_in_query(token)
    }

    /// Whether the token stood in the query.
    #[must_use]
    pub fn is_in_query(&self, token: &Secret) -> bool {
        is_among(&self.query, token)
    }
}

fn is_among(shown: &[Secret], token: &Secret) -> bool {
    let token = token.reveal().as_bytes();
    let same = |shown: &Secret| shown.reveal().as_bytes().ct_eq(token);
    shown.iter().fold(Choice::from(0), |found, shown| found | same(shown)).into()
}

fn take_header(headers: &mut HeaderMap, shown: &mut Vec<Secret>) {
    let values = headers.get_all(NAME).iter().filter_map(|value| value.to_str().ok());
    shown.extend(values.map(secret));
    headers.remove(NAME);
}

fn take_cookies(headers: &mut HeaderMap, shown: &mut Vec<Secret>) {
    let has = |value: &HeaderValue| contains(value.as_bytes(), NAME.as_bytes());
    if !headers.get_all(header::COOKIE).iter().any(has) {
        return;
    }
    let header::Entry::Occupied(entry) = headers.entry(header::COOKIE) else { return };
    let (_, values) = entry.remove_entry_mult();
    let mut kept = Vec::new();
    for value in values {
        // What is no text could hide the token from this reading and not from the service's.
        let Ok(text) = value.to_str() else { continue };
        for pair in text.split(';').map(str::trim) {
            match pair.split_once('=') {
                Some((name, token)) if name.trim() == NAME => shown.push(secret(token.trim())),
                _ if pair.contains(NAME) || pair.is_empty() => {}
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

/// The same URI without the parameter; `None` where it has none.
fn without_parameter(uri: &Uri, shown: &mut Vec<Secret>) -> Option<Uri> {
    let query = uri.query().filter(|query| query.contains(NAME))?;
    let mut kept = Vec::new();
    for pair in query.split('&') {
        match pair.split_once('=') {
            Some((NAME, token)) => shown.push(secret(token)),
            _ if pair == NAME => {}
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

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    fn request(uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let request = Request::builder().uri(uri);
        let add = |request: hyper::http::request::Builder, (name, value): &(&str, &str)| {
            request.header(*name, *value)
        };
        headers.iter().fold(request, add).body(()).expect("a request")
    }

    #[test]
    fn it_may_stand_in_three_places_and_leaves_all_of_them() {
        for (uri, headers) in [
            ("/a?b=1", vec![(NAME, "t0k")]),
            ("/a?e2b-traffic-access-token=t0k&b=1", vec![]),
            ("/a?b=1&e2b-traffic-access-token=t0k", vec![]),
            ("/a?b=1", vec![("cookie", "x=1; e2b-traffic-access-token=t0k; y=2")]),
            ("/a?b=1", vec![(NAME, "wrong"), ("cookie", "e2b-traffic-access-token=t0k")]),
        ] {
            let mut request = request(uri, &headers);
            let shown = Shown::take(&mut request);
            assert!(shown.proves(&token("t0k")), "{uri} {headers:?}");
            assert!(!shown.proves(&token("t0k2")) && !shown.proves(&token("")));
            assert_eq!(request.uri(), "/a?b=1");
            assert!(!format!("{request:?}").contains("t0k"), "{request:?}");
        }
    }

    #[test]
    fn it_is_known_where_it_stood() {
        let shown = |uri: &str, headers: &[(&str, &str)]| {
            let shown = Shown::take(&mut request(uri, headers));
            let token = token("t0k");
            (shown.proves(&token), shown.proves_itself(&token), shown.is_in_query(&token))
        };
        let cookie = [("cookie", "e2b-traffic-access-token=t0k")];
        assert_eq!(shown("/?e2b-traffic-access-token=t0k", &cookie), (true, true, true));
        assert_eq!(shown("/", &[(NAME, "t0k")]), (true, true, false));
        assert_eq!(shown("/?e2b-traffic-access-token=x", &cookie), (true, false, false));
    }

    #[test]
    fn what_else_is_there_stays() {
        let mut request = request(
            "http://h/a?e2b-traffic-access-token=t",
            &[("cookie", "x=1; e2b-traffic-access-token=t"), ("cookie", "y=2"), ("referer", "r")],
        );
        Shown::take(&mut request);
        assert_eq!(request.uri(), "http://h/a");
        assert_eq!(request.headers()["cookie"], "x=1; y=2");
        assert_eq!(request.headers()["referer"], "r");
    }

    #[test]
    fn no_referer_names_it_not_even_a_second_one() {
        let named = "http://h/?e2b-traffic-access-token=t";
        let mut request = request("/", &[("referer", "http://h/"), ("referer", named)]);
        Shown::take(&mut request);
        assert!(request.headers().is_empty());
    }

    #[test]
    fn nothing_shown_proves_nothing() {
        let mut request = request("/", &[("referer", "http://h/?e2b-traffic-access-token=t")]);
        assert!(!Shown::take(&mut request).proves(&token("t")));
        assert!(request.headers().is_empty());
    }
}
