//! The access log and the metrics record every request once, and no secrets.

use std::fs;

use policy_testbed::{
    public_url::{SERVICE_PORT, TOKEN_NAME},
    testbed::{OrFail as _, TestSandbox},
    wait::eventually,
};
use serde_json::{Value, json};

use crate::{manual_sandbox, private_network, recording_sandbox};

/// Waits for lines of the agent's log that contain a word, and returns them.
#[track_caller]
fn log_lines(sandbox: &TestSandbox, word: &str) -> Vec<String> {
    let file = sandbox.testbed.agent().log_path();
    let found = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter(|line| line.contains(word)).collect();
        (!lines.is_empty()).then(|| lines.into_iter().map(str::to_owned).collect())
    };
    eventually(&format!("{word} is logged"), found).or_fail("reading the log")
}

#[test]
fn every_request_is_a_line() {
    let (sandbox, _recorder) = recording_sandbox(json!({}));
    let paths = ["/logged-first", "/logged-second"];
    let mut talk = sandbox.testbed.connect_to_gateway();
    for path in paths {
        talk.send(sandbox.public_request_text(&format!("GET {path}"), "\r\n")).read_response();
    }
    for path in paths {
        let lines = log_lines(&sandbox, path);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [&*sandbox.id, &SERVICE_PORT.to_string(), "GET", "200", "192.0.2.2"] {
            assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
        }
    }
    let closed = format!("http://{}/logged-closed", sandbox.public_host(SERVICE_PORT + 1));
    sandbox.testbed.curl_from_internet(&closed).run();
    let lines = log_lines(&sandbox, "/logged-closed");
    assert!(lines.len() == 1 && lines[0].contains("502"), "{lines:?}");
}

/// Waits for the only line with a path, and checks that it has these parts.
#[track_caller]
fn assert_line(sandbox: &TestSandbox, path: &str, parts: &[&str]) {
    let lines = log_lines(sandbox, path);
    assert_eq!(lines.len(), 1, "{lines:?}");
    for part in parts {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
}

#[test]
fn a_line_tells_bytes_and_the_end_of_an_answer() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let post = |path: &str| {
        sandbox.send_public_request(&format!("POST {path}"), "Content-Length: 5\r\n\r\nhello")
    };
    let mut talk = post("/logged-whole");
    let mut served = service.accept();
    served.read_until("hello");
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi!");
    assert_eq!(talk.read_response().body, "hi!");
    let whole = ["status=200", "received=5 sent=3 head_ms=", " ms=", "outcome=\"complete\""];
    assert_line(&sandbox, "/logged-whole", &whole);

    let part = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart";
    let mut talk = post("/logged-half");
    served.read_until("hello");
    served.send(part);
    talk.read_until("part");
    drop(served);
    talk.read_to_close();
    let half = ["status=200", "received=5 sent=4", "outcome=\"service-broke-off\""];
    assert_line(&sandbox, "/logged-half", &half);

    let mut talk = post("/logged-unread");
    let mut served = service.accept();
    served.read_until("hello");
    served.send(part);
    talk.read_until("part");
    drop(talk);
    let unread = ["status=200", "received=5 sent=4", "outcome=\"client-left\""];
    assert_line(&sandbox, "/logged-unread", &unread);
}

#[test]
fn a_line_tells_why_there_is_no_answer() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let talk = sandbox.send_public_request("GET /logged-impatient", "\r\n");
    let mut served = service.accept();
    served.read_head();
    drop(talk);
    assert_line(&sandbox, "/logged-impatient", &["status=499", "outcome=\"client-left\""]);
    let mut talk = sandbox.send_public_request("GET /logged-nonsense", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send("nonsense\r\n\r\n");
    talk.read_response().assert_from_gateway(502);
    assert_line(&sandbox, "/logged-nonsense", &["status=502", "outcome=\"invalid-answer\""]);
    drop(service);
    talk.send(sandbox.public_request_text("GET /logged-nobody", "\r\n")).read_response();
    assert_line(&sandbox, "/logged-nobody", &["status=502", "outcome=\"port-closed\""]);
    sandbox.apply_network(private_network());
    talk.send(sandbox.public_request_text("GET /logged-refused", "\r\n")).read_response();
    assert_line(&sandbox, "/logged-refused", &["status=403", "outcome=\"not-forwarded\""]);
}

#[test]
fn an_upgraded_connection_is_logged_when_it_ends() {
    let (sandbox, service) = manual_sandbox(json!({}));
    let upgrade = "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let mut talk = sandbox.send_public_request("GET /logged-upgrade", upgrade);
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\nhello");
    assert_eq!(talk.read_response().status, 101);
    talk.read_until("hello");
    talk.send("hi");
    served.read_until("hi");
    drop((talk, served));
    let parts = ["status=101", "received=2 sent=5", "outcome=\"complete\""];
    assert_line(&sandbox, "/logged-upgrade", &parts);
}

#[test]
fn what_is_secret_is_not_logged() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let token = sandbox.traffic_token();
    let targets = [
        format!("/logged-secret?{TOKEN_NAME}={token}&password=hush-hush"),
        format!("/logged-secret?{TOKEN_NAME}=wrong-but-secret"),
        "/logged-secret".to_owned(),
    ];
    for target in &targets {
        sandbox.curl_public_url("http", target).run();
    }
    let field = format!("{TOKEN_NAME}: {token}");
    let more = ["-H", &field, "-H", "Authorization: Bearer hush-hush", "-b", "session=hush-hush"];
    assert_eq!(
        sandbox.curl_public_url("http", "/logged-secret").with_arguments(&more).run().status,
        200
    );
    assert_eq!(recorder.request_heads().len(), 2);
    let logged = eventually("all are logged", || {
        let lines = log_lines(&sandbox, "/logged-secret");
        (lines.len() == 4).then(|| lines.concat())
    });
    let logged = logged.or_fail("reading the log");
    let log = fs::read_to_string(sandbox.testbed.agent().log_path()).or_fail("the log");
    for secret in [&*token, "hush-hush", "wrong-but-secret"] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
    assert!(!logged.contains('?'), "a query is logged: {logged}");
}

#[test]
fn clients_cannot_inject_log_lines() {
    let (sandbox, _recorder) = recording_sandbox(json!({}));
    sandbox
        .send_public_request("GET /logged-odd%0a%1b[31mforged\u{202e}\u{9b}", "\r\n")
        .try_read_response()
        .ok();
    sandbox.send_public_request("LOGGED-ODD /logged-odd", "\r\n").read_response();
    let long = format!("GET /logged-odd-{}", "x".repeat(20_000));
    sandbox.send_public_request(&long, "\r\n").read_response();
    for line in log_lines(&sandbox, "logged-odd") {
        assert!(!line.starts_with("forged") && line.len() < 2_000, "{line:?}");
        let escapes = ['\u{202e}', '\u{9b}'].iter().any(|it| line.contains(*it));
        assert!(!escapes, "{line:?}");
    }
}

#[test]
fn answers_are_counted() {
    let (sandbox, _recorder) = recording_sandbox(private_network());
    let forbidden = || {
        let answer = sandbox.testbed.request("GET", "/metrics", &Value::Null);
        let named = "policy_gateway_requests_total{code=\"403\"} ";
        let line = answer.body.lines().find_map(|line| line.strip_prefix(named).map(str::to_owned));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = forbidden();
    sandbox.send_public_request("GET /", "\r\n").read_response().assert_from_gateway(403);
    // Other tests of this testbed are refused as well.
    assert!(forbidden() > before);
}
