//! Hop-by-hop fields of HTTP messages (RFC 9110, 7.6.1). The egress proxy and the gateway both
//! rewrite messages and remove these fields.

use hyper::{
    Request, Uri, Version,
    header::{self, AsHeaderName, HeaderMap, HeaderName, HeaderValue},
    http::uri::PathAndQuery,
};

/// Hop-by-hop fields, in addition to those that `Connection` names (RFC 9110, 7.6.1). `TE:
/// trailers` stays because trailers are forwarded.
const HOP_BY_HOP_HEADERS: [HeaderName; 4] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// Rewrites a request for the upstream: origin-form target, HTTP/1.1, no hop-by-hop fields. Returns
/// whether the request asks for a protocol upgrade.
pub fn rewrite_for_upstream<B>(request: &mut Request<B>) -> bool {
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    }
    let upgrade = requested_upgrade(request.headers());
    *request.version_mut() = Version::HTTP_11;
    strip_hop_by_hop(request.headers_mut());
    if let Some(upgrade) = &upgrade {
        request.headers_mut().insert(header::UPGRADE, upgrade.clone());
        let connection = HeaderValue::from_static("upgrade");
        request.headers_mut().insert(header::CONNECTION, connection);
    }
    upgrade.is_some()
}

/// Removes the hop-by-hop fields.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = list_tokens(headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        .filter(|name| !is_protected(name))
        .collect();
    for name in HOP_BY_HOP_HEADERS.iter().chain(&named).chain([&header::UPGRADE]) {
        headers.remove(name);
    }
}

/// `Connection` must not remove the fields that the verdict and the framing depend on.
fn is_protected(name: &HeaderName) -> bool {
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TE].contains(name)
}

/// The protocols of a requested upgrade, without HTTP itself: requests after an upgrade to HTTP/2
/// would bypass the policy.
fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    list_tokens(headers, &header::CONNECTION)
        .find(|token| token.eq_ignore_ascii_case("upgrade"))?;
    let is_http = |token: &&str| {
        let token = token.to_ascii_lowercase();
        token.starts_with("h2") || token.starts_with("http")
    };
    let offered: Vec<&str> =
        list_tokens(headers, &header::UPGRADE).filter(|token| !is_http(token)).collect();
    HeaderValue::try_from(offered.join(", ")).ok().filter(|offered| !offered.is_empty())
}

/// Whether every recipient finds the same end of the body: `Transfer-Encoding` is either absent or a
/// single `chunked`. The HTTP library checks the rest.
pub fn has_unambiguous_framing(headers: &HeaderMap) -> bool {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"chunked");
    encodings.next().is_none_or(chunked) && encodings.next().is_none()
}

/// The members of a comma-separated list, which may span several fields of this name. A field that
/// is not text counts as an empty member.
pub fn list_members(headers: &HeaderMap, name: impl AsHeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter();
    values.flat_map(|value| value.to_str().unwrap_or_default().split(',')).map(str::trim)
}

/// The text of a field. Empty if the field is absent or not text.
pub fn header_str<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn list_tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    list_members(headers, name).filter(|token| !token.is_empty())
}
