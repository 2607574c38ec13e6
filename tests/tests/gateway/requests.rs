//! Requests that are odd, long, slow, cut off, or none: each gets an answer that says why, a line in the
//! log and a count.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
    time::Duration,
};

use policy_tests::{
    gateway::{self, CONFIG, PORT, frames::Outcome},
    patience::{PATIENCE, eventually},
    probe,
    stage::{Guest, OrFail as _, Stage},
};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};

use crate::{played, recorded, tls::trusting_own};

/// How long the gateway waits for a connection to say what it speaks.
const GREETING: Duration = Duration::from_secs(10);

#[test]
fn targets_that_programs_write_go_through() {
    let (sandbox, recorder) = recorded(json!({}));
    for (target, expected) in [
        ("/query?q=up{job=\"x\"}", "/query?q=up{job=%22x%22}"),
        ("/<a>?b=<c>", "/%3Ca%3E?b=%3Cc%3E"),
        ("/caf\u{e9}?\u{fc}", "/caf%C3%A9?%C3%BC"),
        ("/a|b^c\\d?e|f`", "/a|b^c\\d?e|f%60"),
    ] {
        let reply = sandbox.ask(&format!("GET {target}"), "\r\n").reply();
        let line = format!("GET {expected} HTTP/1.1\r\n");
        assert!(reply.body.starts_with(&line), "{target}: {reply:?}");
    }
    let mut talk = sandbox.stage.knock();
    talk.say(b"GET /caf\xe9 HTTP/1.1\r\nHost: ").say(sandbox.host(PORT)).say("\r\n\r\n");
    assert!(talk.reply().body.starts_with("GET /caf%E9 HTTP/1.1\r\n"));
    assert_eq!(recorder.connections(), 1);
}

#[test]
fn every_refusal_has_a_body() {
    let (sandbox, recorder) = recorded(json!({}));
    let long = "x".repeat(70_000);
    for request in [
        sandbox.request("GET /\u{7f}", "\r\n"),
        sandbox.request("GET /", "no colon\r\n\r\n"),
        sandbox.request("GET /", "Content-Length: x\r\n\r\n"),
        sandbox.request("GET /", &format!("X: {long}\r\n\r\n")),
        sandbox.request(&format!("GET /{long}"), "\r\n"),
        sandbox.request("GET /", &format!("{}\r\n", "X: y\r\n".repeat(200))),
        sandbox.request("GET /", "\r\n").replace("HTTP/1.1", "HTTP/3.0"),
        sandbox.request("GET /", "\r\n").replace("\r\n", "\n"),
        sandbox.request("CONNECT fault:2", "\r\n"),
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n".to_owned(),
        "\0\0\0\0\r\n\r\n".to_owned(),
    ] {
        let mut talk = sandbox.stage.knock();
        let reply = talk.say(&request).reply();
        reply.is_of_gateway(400);
        assert!(reply.closes, "{reply:?}");
        talk.ending();
    }
    assert_eq!(recorder.connections(), 0);
    // Behind a good one it is told as well.
    let bad = format!("{}{}", sandbox.request("GET /1", "\r\n"), "nonsense\r\n\r\n");
    let mut talk = sandbox.stage.knock();
    assert_eq!(talk.say(bad).reply().status, 200);
    talk.reply().is_of_gateway(400);
}

#[test]
fn heads_of_http_2_may_be_as_long_as_others() {
    let (sandbox, recorder) = recorded(json!({}));
    let fields: Vec<String> =
        (0..6).map(|number| format!("X-Long-{number}: {}", "x".repeat(9_500))).collect();
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let fetched = sandbox.fetch("http", "/").with(&fields).with(&[version]).run();
        assert_eq!(fetched.status, 200, "{version}: {}", fetched.stderr);
    }
    let host = sandbox.host(PORT);
    let good = [(":method", "GET"), (":scheme", "http"), (":authority", &*host), (":path", "/")];
    assert_eq!(recorder.heads().len(), 2);
    assert_eq!(sandbox.stage.frames().request(&good, ""), Outcome::Answered(200));
}

/// A count of the gateway's metrics.
#[track_caller]
fn count(stage: &Stage, name: &str) -> u64 {
    let answer = stage.request("GET", "/metrics", &Value::Null);
    let named = answer.body.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    named.map_or(0, |count| count.parse().or_fail("a count"))
}

/// Waits until requests with a status are counted, and logged.
#[track_caller]
fn are_told(stage: &Stage, code: u16, times: u64) {
    let name = format!("policy_gateway_requests_total{{code=\"{code}\"}} ");
    let status = format!("status={code}");
    let log = stage.agent().log_file();
    let told = || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let lines =
            text.lines().filter(|line| line.contains(" access: ") && line.contains(&status));
        let lines = u64::try_from(lines.count()).or_fail("a count");
        (count(stage, &name) == times && lines == times).then_some(())
    };
    eventually(&format!("{times} with status {code} are counted and logged"), told)
        .or_fail("asking");
}

/// A TLS connection from the internet to the gateway.
#[track_caller]
fn inside_tls(stage: &Stage, alpn: &[u8]) -> StreamOwned<ClientConnection, TcpStream> {
    let stream = probe::connect(&stage.world.internet, gateway::https()).or_fail("connecting");
    let mut trust = ClientConfig::clone(&trusting_own(stage));
    trust.alpn_protocols = vec![alpn.to_vec()];
    let name = gateway::host("any", PORT).try_into().or_fail("a name");
    let client = ClientConnection::new(Arc::new(trust), name).or_fail("a client");
    let mut stream = StreamOwned::new(client, stream);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).or_fail("shaking hands");
    }
    stream
}

#[test]
fn what_breaks_off_is_counted_and_logged() {
    let stage = Stage::with_names(CONFIG);
    let sandbox = stage.sandbox();
    sandbox.network(json!({}));
    // In the middle of a head; a client that still listens is told.
    for begin in ["G", "PRI * HT", "GET / HTTP/1.1\r\nHost: "] {
        let mut talk = stage.knock();
        talk.say(begin).stream().shutdown(Shutdown::Write).or_fail("ending");
        talk.reply().is_of_gateway(400);
    }
    are_told(&stage, 400, 3);
    // While it waits for an answer.
    let service = gateway::service::Service::listen(&sandbox.inside, PORT).or_fail("listening");
    let talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    drop(talk);
    assert_eq!(served.rest(), "");
    are_told(&stage, 499, 1);
    // In the middle of a handshake.
    let mut stream = probe::connect(&stage.world.internet, gateway::https()).or_fail("connecting");
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").or_fail("no hello");
    let _ = stream.read_to_end(&mut Vec::new());
    let failed = || (count(&stage, "policy_gateway_failed_handshakes_total ") == 1).then_some(());
    eventually("a handshake that failed is counted", failed).or_fail("asking");
    // Who says nothing has asked for nothing.
    drop(stage.knock());
    are_told(&stage, 400, 3);
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let stage = Stage::with_names(CONFIG);
    let plain = probe::connect(&stage.world.internet, gateway::http()).or_fail("connecting");
    let mut silent = [inside_tls(&stage, b"h2"), inside_tls(&stage, b"http/1.1")];
    for stream in &mut silent {
        stream.sock.set_read_timeout(Some(GREETING + *PATIENCE)).or_fail("a limit");
        // The end, proper or not.
        let _ = stream.read_to_end(&mut Vec::new());
        let error = stream.sock.read(&mut [0]).map_err(|error| error.kind());
        assert!(matches!(error, Ok(0) | Err(std::io::ErrorKind::ConnectionReset)), "{error:?}");
    }
    plain.set_read_timeout(Some(GREETING + *PATIENCE)).or_fail("a limit");
    assert_eq!((&plain).read(&mut [0]).or_fail("an end"), 0);
    are_told(&stage, 408, 3);
    let mut wrong = inside_tls(&stage, b"h2");
    wrong.write_all(b"GET / HTTP/1.1\r\n\r\n").or_fail("no preface");
    let _ = wrong.read_to_end(&mut Vec::new());
    are_told(&stage, 400, 1);
}

/// Asks, and says that nothing more will come.
#[track_caller]
fn last(sandbox: &Guest, requests: &str) -> policy_tests::names::raw::Talk {
    let mut talk = sandbox.stage.knock();
    talk.say(requests).stream().shutdown(Shutdown::Write).or_fail("ending one way");
    talk
}

#[test]
fn a_client_that_has_no_more_to_ask_is_answered() {
    let (sandbox, service) = played(json!({}));
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let mut talk = last(&sandbox, &sandbox.request("GET /", "\r\n"));
    let mut served = service.accept();
    served.head();
    served.say(answer);
    assert_eq!(talk.reply().body, "whole");
    talk.ending();
    let post = sandbox.request("POST /", "Content-Length: 2\r\n\r\nhi");
    let mut talk = last(&sandbox, &post);
    served.until("hi");
    served.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..3 {
        served.say("4\r\npart\r\n");
        talk.until("part");
    }
    served.say("0\r\n\r\n");
    talk.until("0\r\n\r\n");
    talk.ending();
    // All that were sent are answered.
    let (sandbox, _recorder) = recorded(json!({}));
    let mut talk = last(
        &sandbox,
        &["GET /1", "GET /2", "GET /3"].map(|it| sandbox.request(it, "\r\n")).concat(),
    );
    for number in 1..=3 {
        assert!(talk.reply().body.starts_with(&format!("GET /{number} ")));
    }
    talk.ending();
}

#[test]
fn so_is_one_inside_tls() {
    let (sandbox, _recorder) = recorded(json!({}));
    let mut stream = inside_tls(&sandbox.stage, b"http/1.1");
    stream.write_all(sandbox.request("GET /", "\r\n").as_bytes()).or_fail("asking");
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
