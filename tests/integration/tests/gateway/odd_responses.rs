//! Responses that are unusual or large but have exactly one interpretation.

use policy_testbed::{named_internet::curl::CurlResult, testbed::OrFail as _};
use serde_json::json;

use crate::manual_sandbox;

/// The scheme and the HTTP version of curl's requests.
const CURL_MODES: [(&str, &str); 3] =
    [("http", "--http1.1"), ("http", "--http2-prior-knowledge"), ("https", "--http2")];

/// curl's result for a response in each mode, including its head.
#[track_caller]
fn curl_in_each_mode(answer: &str) -> Vec<CurlResult> {
    let (sandbox, service) = manual_sandbox(json!({}));
    let mut all = Vec::new();
    for (scheme, version) in CURL_MODES {
        let fetched = std::thread::scope(|scope| {
            let curl = sandbox.curl_public_url(scheme, "/").with_arguments(&[version, "--include"]);
            let client = scope.spawn(move || curl.run());
            let mut served = service.accept();
            served.read_head();
            served.send(answer);
            drop(served);
            client.join().unwrap_or_else(|_| panic!("curl's thread panicked"))
        });
        all.push(fetched);
    }
    all
}

/// Asserts that curl receives a response in each mode, with its head in lower case and its body.
#[track_caller]
fn assert_passes(answer: &str, body: &str, wanted: &[&str], unwanted: &[&str]) {
    for fetched in curl_in_each_mode(answer) {
        assert_eq!((fetched.exit_code, fetched.status), (0, 200), "{fetched:?}");
        let text = fetched.text();
        let (head, rest) = text.split_once("\r\n\r\n").or_fail("a head");
        let head = format!("{}\r\n", head.to_lowercase());
        assert!(rest.starts_with(body), "{rest:?}");
        for field in wanted {
            assert!(head.contains(&format!("\r\n{field}\r\n")), "{field} is not in {head}");
        }
        for text in unwanted {
            assert!(!head.contains(text), "{text} is in {head}");
        }
    }
}

#[test]
fn many_fields_and_long_heads_pass() {
    let fields: String = (0..500).map(|number| format!("X-Field-{number}: {number}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nhi");
    assert_passes(&answer, "hi", &["x-field-0: 0", "x-field-499: 499"], &[]);
    // The documented maximum, minus the 32 bytes per field that a client adds in its own
    // accounting.
    let long = "x".repeat(6_000);
    let fields: String = (0..10).map(|number| format!("X-Field-{number}: {long}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nhi");
    assert_passes(&answer, "hi", &[&format!("x-field-9: {long}")], &[]);
}

#[test]
fn odd_fields_pass_or_are_left_out() {
    let answer = "HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\n\tthree\r\nX-Spaced : four\r\n\
                  X Odd: five\r\nX-Control: a\x01b\r\n: nameless\r\nno colon\r\n\
                  X-Last: six\r\nContent-Length: 2\r\n\r\nhi";
    assert_passes(answer, "hi", &["x-spaced: four", "x-last: six"], &["odd", "nameless", "colon"]);
    for fetched in curl_in_each_mode(answer) {
        let folded = fetched.text();
        let folded = folded.lines().find(|line| line.to_lowercase().starts_with("x-folded:"));
        let words: Vec<&str> = folded.or_fail("the folded field").split_whitespace().collect();
        assert_eq!(words[1..], ["one", "two", "three"], "{fetched:?}");
    }
}

#[test]
fn chunks_win_over_a_length_and_equal_lengths_are_one() {
    for length in ["2", "5", "100"] {
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nwhole\r\n0\r\n\r\n"
        );
        assert_passes(&answer, "whole", &[], &["content-length"]);
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi";
    assert_passes(answer, "hi", &["content-length: 2"], &["2, 2"]);
}

#[test]
fn what_has_no_one_end_does_not_pass() {
    for fields in [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 3",
        "Content-Length: -1",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        for fetched in curl_in_each_mode(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhi!")) {
            assert_eq!((fetched.exit_code, fetched.status), (0, 502), "{fields}: {fetched:?}");
        }
    }
}

#[test]
fn trailers_need_no_announcement_in_http2() {
    let answer = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                  2\r\nhi\r\n0\r\nGrpc-Status: 7\r\n\r\n";
    for fetched in curl_in_each_mode(answer).iter().filter(|fetched| fetched.version == "2") {
        assert_eq!((fetched.exit_code, fetched.status), (0, 200), "{fetched:?}");
        assert!(fetched.text().to_lowercase().contains("grpc-status: 7"), "{fetched:?}");
    }
}
