//! Requests that are unusual, long, slow, truncated, or invalid: each gets a response with the
//! reason, a log line and a count.
//! log and a count.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use policy_testbed::{
    probe,
    public_url::{self, GATEWAY_CONFIG, SERVICE_PORT, raw_http2::Http2Outcome},
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::{WAIT_LIMIT, eventually},
};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{certificates::client_trusting_self_signed, manual_sandbox, recording_sandbox};

/// The time within which a connection must reveal its protocol.
const PROTOCOL_DETECTION_TIMEOUT: Duration = Duration::from_secs(10);

#[test]
fn targets_that_programs_write_go_through() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    for (target, expected) in [
        ("/query?q=up{job=\"x\"}", "/query?q=up{job=%22x%22}"),
        ("/<a>?b=<c>", "/%3Ca%3E?b=%3Cc%3E"),
        ("/caf\u{e9}?\u{fc}", "/caf%C3%A9?%C3%BC"),
        ("/a|b^c\\d?e|f`", "/a|b^c\\d?e|f%60"),
    ] {
        let reply = sandbox.send_public_request(&format!("GET {target}"), "\r\n").read_response();
        let line = format!("GET {expected} HTTP/1.1\r\n");
        assert!(reply.body.starts_with(&line), "{target}: {reply:?}");
    }
    let mut talk = sandbox.testbed.connect_to_gateway();
    talk.send(b"GET /caf\xe9 HTTP/1.1\r\nHost: ")
        .send(sandbox.public_host(SERVICE_PORT))
        .send("\r\n\r\n");
    assert!(talk.read_response().body.starts_with("GET /caf%E9 HTTP/1.1\r\n"));
    assert_eq!(recorder.connection_count(), 1);
}

#[test]
fn every_refusal_has_a_body() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let long = "x".repeat(70_000);
    for request in [
        sandbox.public_request_text("GET /\u{7f}", "\r\n"),
        sandbox.public_request_text("GET /", "no colon\r\n\r\n"),
        sandbox.public_request_text("GET /", "Content-Length: x\r\n\r\n"),
        sandbox.public_request_text("GET /", &format!("X: {long}\r\n\r\n")),
        sandbox.public_request_text(&format!("GET /{long}"), "\r\n"),
        sandbox.public_request_text("GET /", &format!("{}\r\n", "X: y\r\n".repeat(200))),
        sandbox.public_request_text("GET /", "\r\n").replace("HTTP/1.1", "HTTP/3.0"),
        sandbox.public_request_text("GET /", "\r\n").replace("\r\n", "\n"),
        sandbox.public_request_text("CONNECT fault:2", "\r\n"),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let mut talk = sandbox.testbed.connect_to_gateway();
        let reply = talk.send(&request).read_response();
        reply.assert_from_gateway(400);
        assert!(reply.announces_close, "{reply:?}");
        talk.read_to_close();
    }
    assert_eq!(recorder.connection_count(), 0);
    // An invalid request after a valid one also gets a response.
    let bad = format!("{}{}", sandbox.public_request_text("GET /1", "\r\n"), "nonsense\r\n\r\n");
    let mut talk = sandbox.testbed.connect_to_gateway();
    assert_eq!(talk.send(bad).read_response().status, 200);
    talk.read_response().assert_from_gateway(400);
}

#[test]
fn heads_of_http_2_may_be_as_long_as_others() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let fields: Vec<String> =
        (0..6).map(|number| format!("X-Long-{number}: {}", "x".repeat(9_500))).collect();
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let fetched = sandbox
            .curl_public_url("http", "/")
            .with_arguments(&fields)
            .with_arguments(&[version])
            .run();
        assert_eq!(fetched.status, 200, "{version}: {}", fetched.stderr);
    }
    let host = sandbox.public_host(SERVICE_PORT);
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", &*host), (":path", "/")];
    assert_eq!(recorder.request_heads().len(), 2);
    assert_eq!(sandbox.testbed.connect_http2().request(&good, ""), Http2Outcome::Answered(200));
}

/// A counter of the gateway's metrics.
#[track_caller]
fn metric_value(stage: &Testbed, name: &str) -> u64 {
    let answer = stage.request("GET", "/metrics", &Value::Null);
    let named = answer.body.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    named.map_or(0, |count| count.parse().or_fail("a count"))
}

/// Waits until requests with a status have been counted and logged.
#[track_caller]
fn assert_counted_and_logged(stage: &Testbed, code: u16, times: u64) {
    let name = format!("policy_gateway_requests_total{{code=\"{code}\"}} ");
    let status = format!("status={code}");
    let log = stage.agent().log_path();
    let told = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines =
            text.lines().filter(|line| line.contains(" access: ") && line.contains(&status));
        let lines = u64::try_from(lines.count()).or_fail("a count");
        (metric_value(stage, &name) == times && lines == times).then_some(())
    };
    eventually(&format!("{times} with status {code} are counted and logged"), told)
        .or_fail("asking");
}

/// A TLS connection from the internet to the gateway.
#[track_caller]
fn connect_tls(stage: &Testbed, alpn: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let stream =
        probe::connect(&stage.network.internet, public_url::https_address()).or_fail("connecting");
    let mut trust = ClientConfig::clone(&client_trusting_self_signed(stage));
    trust.alpn_protocols = vec![alpn.to_vec()];
    let name = public_url::public_host("any", SERVICE_PORT).try_into().or_fail("a name");
    let client = ClientConnection::new(Arc::new(trust), name).or_fail("a client");
    let mut stream = StreamOwned::new(client, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).or_fail("shaking hands");
    }
    stream
}

#[test]
fn what_breaks_off_is_counted_and_logged() {
    let stage = Testbed::with_names(GATEWAY_CONFIG);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    // Half-closed in the middle of a head: the client can still receive the response.
    for begin in ["G", "PRI * HT", "GET / HTTP/1.1\r\nHost: "] {
        let mut talk = stage.connect_to_gateway();
        talk.send(begin).stream().shutdown(Shutdown::Write).or_fail("ending");
        talk.read_response().assert_from_gateway(400);
    }
    assert_counted_and_logged(&stage, 400, 3);
    // Closed while waiting for a response.
    let service =
        public_url::manual_service::ManualService::listen(&sandbox.namespace, SERVICE_PORT)
            .or_fail("listening");
    let talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    drop(talk);
    assert_eq!(served.read_to_close(), "");
    assert_counted_and_logged(&stage, 499, 1);
    // Closed in the middle of a handshake.
    let mut stream =
        probe::connect(&stage.network.internet, public_url::https_address()).or_fail("connecting");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").or_fail("no hello");
    let _ = stream.read_to_end(&mut Vec::new());
    let failed =
        || (metric_value(&stage, "policy_gateway_failed_handshakes_total ") == 1).then_some(());
    eventually("a handshake that failed is counted", failed).or_fail("asking");
    // A client that sends nothing has made no request.
    drop(stage.connect_to_gateway());
    assert_counted_and_logged(&stage, 400, 3);
}

#[test]
fn silent_clients_are_disconnected() {
    let stage = Testbed::with_names(GATEWAY_CONFIG);
    let plain =
        probe::connect(&stage.network.internet, public_url::http_address()).or_fail("connecting");
    let mut silent = [connect_tls(&stage, b"h2"), connect_tls(&stage, b"http/1.1")];
    for stream in &mut silent {
        stream
            .sock
            .set_read_timeout(Some(PROTOCOL_DETECTION_TIMEOUT + *WAIT_LIMIT))
            .or_fail("a limit");
        // The end of the connection, clean or not.
        let _ = stream.read_to_end(&mut Vec::new());
        let error = stream.sock.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(error, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{error:?}");
    }
    plain.set_read_timeout(Some(PROTOCOL_DETECTION_TIMEOUT + *WAIT_LIMIT)).or_fail("a limit");
    assert_eq!((&plain).read(&mut [0]).or_fail("an end"), 0);
    assert_counted_and_logged(&stage, 408, 3);
    let mut wrong = connect_tls(&stage, b"h2");
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").or_fail("no preface");
    let _ = wrong.read_to_end(&mut Vec::new());
    assert_counted_and_logged(&stage, 400, 1);
}

/// Sends bytes, then closes the sending direction.
#[track_caller]
fn send_and_half_close(
    sandbox: &TestSandbox,
    requests: &str,
) -> policy_testbed::named_internet::raw_http::RawHttpConnection {
    let mut talk = sandbox.testbed.connect_to_gateway();
    talk.send(requests).stream().shutdown(Shutdown::Write).or_fail("ending one way");
    talk
}

#[test]
fn a_client_that_has_no_more_to_ask_is_answered() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let mut talk = send_and_half_close(&sandbox, &sandbox.public_request_text("GET /", "\r\n"));
    let mut served = service.accept();
    served.read_head();
    served.send(answer);
    assert_eq!(talk.read_response().body, "whole");
    talk.read_to_close();
    let post = sandbox.public_request_text("POST /", "Content-Length: 2\r\n\r\nhi");
    let mut talk = send_and_half_close(&sandbox, &post);
    served.read_until("hi");
    served.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        served.send("4\r\npart\r\n");
        talk.read_until("part");
    }
    served.send("0\r\n\r\n");
    talk.read_until("0\r\n\r\n");
    talk.read_to_close();
    // All requests that were sent get responses.
    let (sandbox, _recorder) = recording_sandbox(json!({}));
    let mut talk = send_and_half_close(
        &sandbox,
        &["GET /1", "GET /2", "GET /3"].map(|it| sandbox.public_request_text(it, "\r\n")).concat(),
    );
    for number in 1..=3 {
        assert!(talk.read_response().body.starts_with(&format!("GET /{number} ")));
    }
    talk.read_to_close();
}

#[test]
fn a_tls_client_that_has_no_more_to_ask_is_answered() {
    let (sandbox, _recorder) = recording_sandbox(json!({}));
    let mut stream = connect_tls(&sandbox.testbed, b"http/1.1");
    stream.write_all(sandbox.public_request_text("GET /", "\r\n").as_bytes()).or_fail("asking");
    stream.conn.send_close_notify();
    stream.flush().or_fail("ending");
    stream.sock.shutdown(Shutdown::Write).or_fail("ending one way");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).or_fail("reading to the end");
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("GET / HTTP/1.1"),
        "{answer}"
    );
}
