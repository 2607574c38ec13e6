//! Sets the `X-Forwarded-*` headers that describe the client to the service. Those sent by the
//! client are removed, so services can trust them.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::client_listener::UrlScheme;

/// The client's address.
pub(super) const X_FORWARDED_FOR: &str = "x-forwarded-for";
/// The host that it requested.
pub(super) const X_FORWARDED_HOST: &str = "x-forwarded-host";
/// The scheme that it used.
pub(super) const X_FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Other headers that describe the client or its request, in addition to all that start with
/// `x-forwarded`. Frameworks, and the proxies and networks they support, read them, but nothing
/// verifies them.
const SPOOFABLE_HEADERS: [&str; 32] = [
    "akamai-client-ip",
    "ali-cdn-real-ip",
    "cdn-src-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-pseudo-ipv4",
    "cf-visitor",
    "client-ip",
    "cloudfront-forwarded-proto",
    "cloudfront-viewer-address",
    "do-connecting-ip",
    "fastly-client-ip",
    "fastly-ssl",
    "fly-client-ip",
    "forwarded",
    "forwarded-for",
    "front-end-https",
    "proxy-client-ip",
    "remote-addr",
    "true-client-ip",
    "wl-proxy-client-ip",
    "x-appengine-user-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-envoy-external-address",
    "x-original-host",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-url-scheme",
];

/// Replaces all headers that describe the client.
pub(super) fn set_forwarded_headers(
    headers: &mut HeaderMap,
    client: IpAddr,
    scheme: UrlScheme,
    host: &str,
) {
    let spoofable: Vec<HeaderName> =
        headers.keys().filter(|name| is_spoofable(name)).cloned().collect();
    for name in spoofable {
        headers.remove(name);
    }
    let client = client.to_canonical().to_string();
    for (name, value) in [
        (X_FORWARDED_FOR, client.as_str()),
        (X_FORWARDED_HOST, host),
        (X_FORWARDED_PROTO, scheme.as_str()),
    ] {
        // A host that is not a valid field value was refused earlier.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// Whether a header describes the client. CGI and its successors (WSGI, Rack, PHP) treat an
/// underscore as a hyphen. Some treat any other punctuation the same way.
fn is_spoofable(name: &HeaderName) -> bool {
    let normalize = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '-' };
    let name: String = name.as_str().bytes().map(normalize).collect();
    name == "x-forwarded"
        || name.starts_with("x-forwarded-")
        || SPOOFABLE_HEADERS.iter().any(|header| *header == name)
        || name.ends_with("-forwarded-for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers_after_set(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_static("forged"));
        }
        let client = "::ffff:192.0.2.7".parse().expect("an address");
        set_forwarded_headers(&mut headers, client, UrlScheme::Https, "1-a.example.com");
        headers
    }

    #[test]
    fn what_the_client_sends_is_replaced() {
        let forwarded = [X_FORWARDED_FOR, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO];
        let headers = headers_after_set(&[&SPOOFABLE_HEADERS[..], &forwarded].concat());
        assert_eq!(headers.len(), 3);
        assert_eq!(headers[X_FORWARDED_FOR], "192.0.2.7");
        assert_eq!(headers[X_FORWARDED_HOST], "1-a.example.com");
        assert_eq!(headers[X_FORWARDED_PROTO], "https");
    }

    #[test]
    fn no_variant_of_a_spoofable_header_is_left() {
        let names = [
            "X_Forwarded_For",
            "x_forwarded-for",
            "X_FORWARDED_PROTO",
            "x.forwarded.for",
            "X_Real_IP",
            "True_Client_IP",
            "X-Forwarded",
            "X-Forwarded-Port",
            "X-Forwarded-Server",
            "X-Forwarded-Ssl",
            "X-Forwarded-Prefix",
            "X-Vercel-Forwarded-For",
        ];
        assert_eq!(headers_after_set(&names).len(), 3);
    }

    #[test]
    fn other_fields_stay() {
        let names =
            ["via", "x-forward", "x-forwardedness", "x-request-id", "x_custom", "user-agent"];
        assert_eq!(headers_after_set(&names).len(), 3 + names.len());
    }
}
