//! HTTP/2 requests that would have another meaning in HTTP/1.1 (RFC 9113, 8.2 and 10.3): line ends
//! in fields, wrong lengths, framing fields. None of them becomes a second request.

use policy_testbed::public_url::{SERVICE_PORT, raw_http2::Http2Outcome};
use serde_json::json;

use crate::recording_sandbox;

const INJECTED_VALUE: &str = "x\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";
const SMUGGLED_BODY: &str = "GET /smuggled HTTP/1.1\r\nHost: smuggled\r\n\r\n";

#[test]
fn no_second_request_comes_of_one() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let (host, other) = (sandbox.public_host(SERVICE_PORT), sandbox.public_host(SERVICE_PORT + 1));
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", &*host), (":path", "/")];
    let count = || recorder.request_heads().len();
    assert_eq!(sandbox.testbed.connect_http2().request(&good, ""), Http2Outcome::Answered(200));

    let comes_through = |most: usize, fields: &[(&str, &str)], body: &str| {
        let before = count();
        let outcome = sandbox.testbed.connect_http2().request(fields, body);
        let refused = matches!(
            outcome,
            Http2Outcome::Answered(400..=499 | 501) | Http2Outcome::Reset | Http2Outcome::Closed
        );
        assert!(refused || most > 0, "{fields:?}: {outcome:?}");
        assert!(count() <= before + most, "{fields:?} comes through");
        let canary = format!("GET /canary-{before}");
        let reply = sandbox.send_public_request(&canary, "\r\n").read_response();
        assert!(reply.body.starts_with(&canary), "behind {fields:?}: {reply:?}");
        let text = recorder.received_text();
        assert!(!text.contains("smuggled"), "{fields:?}: {text}");
    };
    let refuses = |fields: &[(&str, &str)], body: &str| comes_through(0, fields, body);
    let with = |more: &[(&'static str, &'static str)], body: &str| {
        refuses(&[&good[..], more].concat(), body);
    };
    with(&[("transfer-encoding", "chunked")], &format!("0\r\n\r\n{SMUGGLED_BODY}"));
    with(&[("transfer-encoding", "identity")], SMUGGLED_BODY);
    for field in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
        with(&[(field, "close")], "");
    }
    for length in ["x", "+42", "42, 42", ""] {
        with(&[("content-length", length)], SMUGGLED_BODY);
    }
    // The head may already be forwarded, and answered, when the body turns out to have another
    // length. Then one request reaches the service, and nothing after it.
    for length in ["0", "1", "1000"] {
        comes_through(1, &[&good[..], &[("content-length", length)]].concat(), SMUGGLED_BODY);
    }
    with(&[("content-length", "5")], "");
    with(&[("content-length", "42"), ("content-length", "45")], SMUGGLED_BODY);
    for value in [INJECTED_VALUE, "x\nGET /smuggled", "x\rGET /smuggled", "x\0smuggled"] {
        with(&[("x-field", value)], "");
        with(&[("cookie", value)], "");
    }
    for name in [
        "X-Upper",
        "x: y\r\nsmuggled",
        "x smuggled",
        "x\0",
        "",
        "x:smuggled",
        ":smuggled",
        ":status",
    ] {
        with(&[(name, "value")], "");
    }
    with(&[(":path", "/smuggled")], "");
    with(&[("te", "chunked, smuggled")], "");
    let other_host = [&good[..], &[("host", &*other)]].concat();
    refuses(&other_host, "");

    let changed = |index: usize, value: &str| {
        let mut fields = good;
        fields[index].1 = value;
        refuses(&fields, "");
    };
    for method in [INJECTED_VALUE, "GET /smuggled", "", "G\0T", "CONNECT"] {
        changed(0, method);
    }
    for authority in [
        "",
        "evil.test",
        &other.replace("30", "0"),
        &format!("user@{host}"),
        &format!("{host} {other}"),
        &format!("{host}\r\nsmuggled: x"),
        &format!("{host}/smuggled"),
    ] {
        changed(2, authority);
    }
    for path in
        [&format!("/{INJECTED_VALUE}"), "", "/ HTTP/1.1 smuggled", "/\nsmuggled", "/\0", "smuggled"]
    {
        changed(3, path);
    }
    for missing in 0..good.len() {
        let fields = good.iter().enumerate().filter(|(at, _)| *at != missing);
        let fields: Vec<_> = fields.map(|(_, field)| *field).collect();
        refuses(&fields, "");
    }
    let behind = [&good[..3], &[("x", "y")], &good[3..]].concat();
    refuses(&behind, "");
    // A WebSocket that the service does not open (RFC 8441) is not a tunnel for requests.
    let extended = [&[(":method", "CONNECT"), (":protocol", "websocket")], &good[1..]].concat();
    comes_through(1, &extended, SMUGGLED_BODY);
    for protocol in ["connect-udp", "", "websocket\r\nsmuggled: x"] {
        let extended = [&[(":method", "CONNECT"), (":protocol", protocol)], &good[1..]].concat();
        refuses(&extended, "");
    }
}
