//! A request has at most one target: every reader finds the same sandbox and port, or none.

use hyper::{Request, Version};
use proptest::prelude::*;

use super::super::{
    domains::GatewayDomains,
    target::{SandboxTarget, parse_target},
};
use crate::fuzz::{cases_or, hostile_bytes};

const DOMAIN: &str = "example.com";

fn domains() -> GatewayDomains {
    GatewayDomains::new(vec![DOMAIN.to_owned()])
}

const PIECES: [&str; 26] = [
    "3000-abc.example.com",
    "80-a.example.com:8443",
    "3000",
    "65536",
    "0",
    "-",
    "abc",
    "ABC",
    ".",
    "sandbox",
    ".example.com",
    "example.org",
    ":443",
    ":",
    "user@",
    "[::1]",
    "127.0.0.1",
    "localhost",
    "%2e",
    "%41",
    "é",
    " ",
    "/",
    "?",
    "#",
    "_",
];

/// A request with these hosts in its target and header fields.
fn request(uri: &[u8], hosts: &[Vec<u8>], sandbox: &[Vec<u8>], h2: bool) -> Option<Request<()>> {
    let version = if h2 { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut request = Request::builder().uri(uri).version(version);
    for host in hosts {
        request = request.header("host", host.as_slice());
    }
    for (name, value) in ["e2b-sandbox-id", "e2b-sandbox-port"].iter().zip(sandbox) {
        request = request.header(*name, value.as_slice());
    }
    request.body(()).ok()
}

/// Whether a parser that only splits the host would find the same sandbox and port.
fn is_named_by(host: &str, target: &SandboxTarget) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let canonical = format!("{}-{}", target.port, target.sandbox);
    match name.strip_suffix(&format!(".{DOMAIN}")) {
        Some("sandbox") => true,
        Some(label) => label == canonical || label.starts_with(&format!("{canonical}-")),
        None => matches!(name.as_str(), "localhost" | "127.0.0.1" | "[::1]"),
    }
}

proptest! {
    #![proptest_config(cases_or(512))]

    #[test]
    fn a_target_has_one_reading(
        uri in prop_oneof![Just(b"/".to_vec()), hostile_bytes(&PIECES, 5)],
        is_absolute: bool,
        hosts in prop::collection::vec(hostile_bytes(&PIECES, 5), 0..3),
        sandbox in prop::collection::vec(hostile_bytes(&PIECES, 2), 0..3),
        h2: bool,
    ) {
        let scheme: &[u8] = if is_absolute { b"http://" } else { b"" };
        let request = request(&[scheme, &uri].concat(), &hosts, &sandbox, h2);
        let Some(request) = request else { return Ok(()) };
        let Ok(target) = parse_target(&request, &domains(), None) else { return Ok(()) };
        prop_assert!(target.port > 0 && hosts.len() <= 1, "{target:?}");
        let plain = target.host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte));
        prop_assert!(plain && is_named_by(&target.host, &target), "{target:?}");
        for host in &hosts {
            prop_assert!(host.eq_ignore_ascii_case(target.host.as_bytes()), "{target:?}");
        }
    }

    #[test]
    fn every_port_and_sandbox_has_its_url(port in 1..=u16::MAX, id in "[a-z0-9]{1,57}") {
        let host = format!("{port}-{id}.{DOMAIN}").into_bytes();
        let request = request(b"/", &[host], &[], false).expect("a request");
        let target = parse_target(&request, &domains(), None).expect("a target");
        prop_assert_eq!((target.port, target.sandbox.as_str()), (port, id.as_str()));
    }
}
