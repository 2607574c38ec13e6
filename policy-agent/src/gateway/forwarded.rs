//! What the service inside is told about the client: `X-Forwarded-*`. What the client says of them
//! itself is dropped, so a service can believe them.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::listen::Scheme;

/// The client's address.
pub const FOR: &str = "x-forwarded-for";
/// The host that it asked for.
pub const HOST: &str = "x-forwarded-host";
/// What it spoke.
pub const PROTO: &str = "x-forwarded-proto";

/// Besides all that begins with `x-forwarded`: other ways to say who asks, how and for what, which nobody
/// vouches for. Frameworks, and the proxies and networks that they know, read them.
const CLAIMS: [&str; 33] = [
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
    "x-original-forwarded-for",
    "x-original-host",
    "x-originating-ip",
    "x-real-ip",
    "x-remote-addr",
    "x-remote-ip",
    "x-scheme",
    "x-url-scheme",
];

/// Replaces what a request says about its client.
pub fn set(headers: &mut HeaderMap, client: IpAddr, scheme: Scheme, host: &str) {
    let claims: Vec<HeaderName> = headers.keys().filter(|name| is_claim(name)).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
    let client = client.to_canonical().to_string();
    for (name, value) in [(FOR, client.as_str()), (HOST, host), (PROTO, scheme.as_str())] {
        // A host that cannot stand in a field was refused before.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

/// Whether a field speaks of the client. CGI and its heirs (WSGI, Rack, PHP) take an underscore, and some
/// any other sign, for a hyphen.
fn is_claim(name: &HeaderName) -> bool {
    let sign = |byte: u8| if byte.is_ascii_alphanumeric() { char::from(byte) } else { '-' };
    let name: String = name.as_str().bytes().map(sign).collect();
    name == "x-forwarded"
        || name.starts_with("x-forwarded-")
        || CLAIMS.iter().any(|claim| *claim == name)
        || name.ends_with("-forwarded-for")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_in(names: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in names {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_static("forged"));
        }
        let client = "::ffff:192.0.2.7".parse().expect("an address");
        set(&mut headers, client, Scheme::Https, "1-a.example.com");
        headers
    }

    #[test]
    fn what_the_client_claims_is_replaced() {
        let forwarded = [FOR, FOR, HOST, PROTO];
        let headers = set_in(&[&CLAIMS[..], &forwarded].concat());
        assert_eq!(headers.len(), 3);
        assert_eq!(headers[FOR], "192.0.2.7");
        assert_eq!(headers[HOST], "1-a.example.com");
        assert_eq!(headers[PROTO], "https");
    }

    #[test]
    fn no_spelling_and_no_relative_of_a_claim_is_left() {
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
        assert_eq!(set_in(&names).len(), 3);
    }

    #[test]
    fn other_fields_stay() {
        let names =
            ["via", "x-forward", "x-forwardedness", "x-request-id", "x_custom", "user-agent"];
        assert_eq!(set_in(&names).len(), 3 + names.len());
    }
}
