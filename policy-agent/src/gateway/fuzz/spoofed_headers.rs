//! A service receives information about its client only from the gateway.

use std::net::IpAddr;

use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;

use super::super::{client_listener::UrlScheme, forwarded_headers};
use crate::fuzz::cases_or;

const NAMES: [&str; 9] = [
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    "x-other",
    "via",
];

proptest! {
    #![proptest_config(cases_or(512))]

    #[test]
    fn no_spoofed_header_is_left(
        fields in prop::collection::vec(
            (prop::sample::select(&NAMES[..]), prop::collection::vec(any::<u8>(), 0..20)), 0..12),
        client: IpAddr,
        host in "[ -~]{0,20}",
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &fields {
            let Ok(value) = HeaderValue::from_bytes(value) else { continue };
            headers.append(HeaderName::from_static(name), value);
        }
        let others = |headers: &HeaderMap| headers.get_all("x-other").iter().count();
        let before = others(&headers);
        forwarded_headers::set_forwarded_headers(&mut headers, client, UrlScheme::Http, &host);
        let client = client.to_canonical().to_string();
        for (name, expected) in NAMES.iter().zip(["", client.as_str(), host.as_str(), "http"]) {
            let values: Vec<_> = headers.get_all(*name).iter().collect();
            let expected = if *name == "forwarded" { vec![] } else { vec![expected] };
            prop_assert_eq!(values, expected);
        }
        prop_assert!(NAMES[4..7].iter().all(|name| !headers.contains_key(*name)));
        prop_assert_eq!(others(&headers), before);
    }
}
