//! What the service inside is told about the client: `X-Forwarded-*`. What the client says of them
//! itself is dropped, so a service can believe them.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::listen::Scheme;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Other ways to say the same, which nobody vouches for.
const CLAIMS: [HeaderName; 4] = [
    header::FORWARDED,
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-server"),
];

/// Replaces what a request says about its client.
pub fn set(headers: &mut HeaderMap, client: IpAddr, scheme: Scheme, host: &str) {
    for name in CLAIMS.iter().chain([&FOR, &HOST, &PROTO]) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_client_claims_is_replaced() {
        let mut headers = HeaderMap::new();
        for name in CLAIMS.iter().chain([&FOR, &FOR, &HOST, &PROTO]) {
            headers.append(name, HeaderValue::from_static("forged"));
        }
        let client = "::ffff:192.0.2.7".parse().expect("an address");
        set(&mut headers, client, Scheme::Https, "1-a.example.com");
        assert_eq!(headers.len(), 3);
        assert_eq!(headers[FOR], "192.0.2.7");
        assert_eq!(headers[HOST], "1-a.example.com");
        assert_eq!(headers[PROTO], "https");
    }
}
