//! What a sandbox may try in order to see a header, or to send it elsewhere.

use std::io::{Read as _, Write as _};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request,
    header::{HeaderName, HeaderValue},
};
use policy_testbed::testbed::{OrFail as _, parse_ip};
use serde_json::json;

use super::{
    CREDENTIAL, RuleScenario, TESTBED, authorization,
    trusting_client::{Http2Client, TlsClient, connect_tls, empty_body},
};

/// Sends bytes and reads the response to the end of the connection.
#[track_caller]
fn exchange(mut tls: TlsClient, bytes: &str) -> String {
    tls.write_all(bytes.as_bytes()).or_fail("sending");
    let mut answer = Vec::new();
    // The agent closes the connection.
    let _ = tls.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_request_for_another_host_is_misdirected() {
    let scenario = RuleScenario::new("host.rules.example");
    for host in ["evil.example", "192.0.2.1", "host.rules.example.evil.example"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let answer = exchange(connect_tls(&scenario), &request);
        assert!(answer.starts_with("HTTP/1.1 421 "), "{host}: {answer}");
        assert!(answer.contains("host_mismatch"), "{answer}");
    }
    assert!(scenario.origin.requests().is_empty());
    scenario.sandbox.assert_name_denied(scenario.name(), "host_mismatch");
}

#[test]
fn a_second_request_for_another_host_is_misdirected_too() {
    let scenario = RuleScenario::new("second.rules.example");
    let name = scenario.name();
    let requests = format!(
        "GET /1 HTTP/1.1\r\nHost: {name}\r\n\r\nGET /2 HTTP/1.1\r\nHost: evil.example\r\n\r\n"
    );
    let answer = exchange(connect_tls(&scenario), &requests);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("HTTP/1.1 421 "), "{answer}");
    assert_eq!(scenario.origin.only_request().path, "/1");
}

#[test]
fn a_target_that_disagrees_with_the_host_is_refused() {
    let scenario = RuleScenario::new("target.rules.example");
    let name = scenario.name();
    for (request, status) in [
        (format!("GET https://evil.example/ HTTP/1.1\r\nHost: {name}\r\n\r\n"), "421"),
        (format!("GET https://{name}/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"), "421"),
        (format!("GET http://{name}/ HTTP/1.1\r\nHost: {name}\r\n\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\nHost: {name}\r\nHost: evil.example\r\n\r\n"), "400"),
        (format!("CONNECT {name}:443 HTTP/1.1\r\nHost: {name}\r\n\r\n"), "400"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), "421"),
    ] {
        let answer = exchange(connect_tls(&scenario), &request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {answer}");
    }
    assert!(scenario.origin.requests().is_empty());
}

#[test]
fn a_coalesced_stream_for_another_host_is_misdirected_and_the_others_go_on() {
    let scenario = RuleScenario::new("coalesced.rules.example");
    let mut client = Http2Client::connect(&scenario);
    assert_eq!(client.get(&scenario.url("/1")).0.status(), 200);
    let (head, body) = client.get("https://evil.example/2");
    assert_eq!(head.status(), 421, "{body}");
    let other_host = Request::get(scenario.url("/3")).header("host", "evil.example");
    let (head, body) = client.request(other_host.body(empty_body()).or_fail("a request"));
    assert_eq!(head.status(), 421, "{body}");
    assert_eq!(client.get(&scenario.url("/4")).0.status(), 200);
    let paths: Vec<_> = scenario.origin.requests().into_iter().map(|it| it.path).collect();
    assert_eq!(paths, ["/1", "/4"]);
}

#[test]
fn the_sandboxes_own_lines_of_the_header_are_replaced() {
    let scenario = RuleScenario::new("replaced.rules.example");
    let name = scenario.name();
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {name}\r\nauthorization: forged\r\nAUTHORIZATION: forged\r\n\
         Connection: close, authorization\r\nX-Other: kept\r\n\r\n"
    );
    let answer = exchange(connect_tls(&scenario), &request);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let mut client = Http2Client::connect(&scenario);
    let mut forged = Request::get(scenario.url("/")).body(empty_body()).or_fail("a request");
    for _ in 0..2 {
        forged.headers_mut().append("authorization", HeaderValue::from_static("forged"));
    }
    assert_eq!(client.request(forged).0.status(), 200);
    for request in scenario.origin.requests() {
        assert_eq!(request.values("authorization"), [CREDENTIAL], "{request:?}");
    }
    assert_eq!(scenario.origin.requests()[0].values("x-other"), ["kept"]);
}

#[test]
fn names_that_servers_take_for_the_same_are_removed() {
    let scenario = RuleScenario::new("alias.rules.example");
    let name = scenario.name().to_owned();
    scenario
        .apply_rules(&json!({ &*name: [{ "transform": { "headers": { "X-Api-Key": "real" } } }] }));
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {name}\r\nX_Api_Key: forged\r\nx-api_key: forged\r\n\
         Connection: close\r\n\r\n"
    );
    assert!(exchange(connect_tls(&scenario), &request).starts_with("HTTP/1.1 200 "));
    let seen = scenario.origin.only_request().headers;
    let keys = |headers: &HeaderMap| {
        let names = headers.keys().map(|name| name.as_str().replace('_', "-"));
        names.filter(|name| name == "x-api-key").count()
    };
    assert_eq!((keys(&seen), &seen["x-api-key"]), (1, &HeaderValue::from_static("real")));
}

#[test]
fn a_trailer_cannot_be_the_header() {
    let scenario = RuleScenario::new("trailer.rules.example");
    let mut client = Http2Client::connect(&scenario);
    let mut trailers = HeaderMap::new();
    trailers.insert("authorization", HeaderValue::from_static("forged"));
    trailers.insert("x-kept", HeaderValue::from_static("kept"));
    let body = Full::from("a body").with_trailers(async { Some(Ok(trailers)) }).boxed();
    let request = Request::post(scenario.url("/echo")).body(body).or_fail("a request");
    // The server returns the trailers that it got.
    let echoed = client.trailers_of(request);
    assert_eq!(echoed.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
}

#[test]
fn heads_that_servers_read_in_two_ways_never_leave() {
    let scenario = RuleScenario::new("smuggled.rules.example");
    let name = scenario.name();
    for fields in [
        "Authorization : forged",
        " Authorization: forged",
        "X: 1\r\n Authorization: forged",
        "Authorization\u{b}: forged",
        "X: 1\rAuthorization: forged",
        "Transfer-Encoding: chunked, gzip",
        "Content-Length: 1\r\nContent-Length: 2",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: {name}\r\n{fields}\r\n\r\n");
        let answer = exchange(connect_tls(&scenario), &request);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields:?}: {answer:?}");
    }
    assert!(scenario.origin.requests().is_empty());
}

#[test]
fn plain_http_goes_as_it_came() {
    let sandbox = TESTBED.add_sandbox();
    let (site, listener) = sandbox.testbed.add_manual_site("plain.rules.example", 80);
    sandbox.apply_network(json!({
        "allowOut": [site.name], "denyOut": ["0.0.0.0/0"],
        "rules": { &*site.name: authorization(CREDENTIAL) },
    }));
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().or_fail("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).or_fail("a head");
            head.extend(byte);
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").or_fail("answering");
        String::from_utf8_lossy(&head).into_owned()
    });
    let fetched = sandbox.curl("http://plain.rules.example/").run();
    assert_eq!(fetched.status, 204, "{fetched:?}");
    let head = serving.join().expect("the server");
    assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
}

#[test]
fn a_name_without_a_rule_keeps_its_own_certificate() {
    let scenario = RuleScenario::new("ruled.rules.example");
    let other = scenario.sandbox.testbed.add_site("unruled.rules.example");
    scenario.sandbox.apply_network(json!({
        "allowOut": [scenario.name(), other.name], "denyOut": ["0.0.0.0/0"],
        "rules": { scenario.name(): authorization(CREDENTIAL) },
    }));
    // Each client trusts one authority only.
    let spliced = scenario.sandbox.curl("https://unruled.rules.example/").run();
    assert!(other.served_page(&spliced.page_json()), "{spliced:?}");
    let distrusting = scenario.sandbox.curl(&scenario.url("/")).run();
    assert_eq!(distrusting.exit_code, 60, "{distrusting:?}");
    assert_eq!(scenario.curl("/").run().status, 200);
}

#[test]
fn a_rule_grants_nothing() {
    let scenario = RuleScenario::new("granted.rules.example");
    scenario.sandbox.apply_network(json!({
        "allowOut": ["elsewhere.example"], "denyOut": ["0.0.0.0/0"],
        "rules": { scenario.name(): authorization(CREDENTIAL) },
    }));
    let refused = scenario.curl("/").run();
    refused.assert_denied_by_alert();
    scenario.sandbox.assert_name_denied(scenario.name(), "name_not_allowed");
    assert!(scenario.origin.requests().is_empty());
}

#[test]
fn a_forged_address_gains_nothing() {
    let scenario = RuleScenario::new("forged.rules.example");
    let forged = scenario.curl("/").resolving_to(parse_ip("203.0.113.99")).run();
    assert_eq!(forged.status, 200, "{forged:?}");
    assert_eq!(scenario.origin.requests().len(), 1);
}
