//! The access log and the metrics: every request once, and nothing that is secret.

use std::fs;

use policy_tests::{
    gateway::{PORT, TOKEN},
    patience::eventually,
    stage::{Guest, OrFail as _},
};
use serde_json::{Value, json};

use crate::{private, recorded};

/// The lines of the agent's log that hold a word, once there is one.
#[track_caller]
fn lines(sandbox: &Guest, word: &str) -> Vec<String> {
    let file = sandbox.stage.agent().log_file();
    let found = || {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let lines: Vec<_> = text.lines().filter(|line| line.contains(word)).collect();
        (!lines.is_empty()).then(|| lines.into_iter().map(str::to_owned).collect())
    };
    eventually(&format!("{word} is logged"), found).or_fail("reading the log")
}

#[test]
fn every_request_is_a_line() {
    let (sandbox, _recorder) = recorded(json!({}));
    let paths = ["/logged-first", "/logged-second"];
    let mut talk = sandbox.stage.knock();
    for path in paths {
        talk.say(sandbox.request(&format!("GET {path}"), "\r\n")).reply();
    }
    for path in paths {
        let lines = lines(&sandbox, path);
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [&*sandbox.id, &PORT.to_string(), "GET", "200", "192.0.2.2"] {
            assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
        }
    }
    let closed = format!("http://{}/logged-closed", sandbox.host(PORT + 1));
    sandbox.stage.visitor(&closed).run();
    let lines = lines(&sandbox, "/logged-closed");
    assert!(lines.len() == 1 && lines[0].contains("502"), "{lines:?}");
}

#[test]
fn what_is_secret_is_not_logged() {
    let (sandbox, recorder) = recorded(private());
    let token = sandbox.traffic_token();
    let targets = [
        format!("/logged-secret?{TOKEN}={token}&password=hush-hush"),
        format!("/logged-secret?{TOKEN}=wrong-but-secret"),
        "/logged-secret".to_owned(),
    ];
    for target in &targets {
        sandbox.fetch("http", target).run();
    }
    let field = format!("{TOKEN}: {token}");
    let more = ["-H", &field, "-H", "Authorization: Bearer hush-hush", "-b", "session=hush-hush"];
    assert_eq!(sandbox.fetch("http", "/logged-secret").with(&more).run().status, 200);
    assert_eq!(recorder.heads().len(), 2);
    let logged = eventually("all are logged", || {
        let lines = lines(&sandbox, "/logged-secret");
        (lines.len() == 4).then(|| lines.concat())
    });
    let logged = logged.or_fail("reading the log");
    let log = fs::read_to_string(sandbox.stage.agent().log_file()).or_fail("the log");
    for secret in [&*token, "hush-hush", "wrong-but-secret"] {
        assert!(!log.contains(secret), "{secret} is logged");
    }
    assert!(!logged.contains('?'), "a query is logged: {logged}");
}

#[test]
fn nobody_writes_lines_of_their_own() {
    let (sandbox, _recorder) = recorded(json!({}));
    sandbox.ask("GET /logged-odd%0a%1b[31mforged\u{202e}\u{9b}", "\r\n").read_reply().ok();
    sandbox.ask("LOGGED-ODD /logged-odd", "\r\n").reply();
    let long = format!("GET /logged-odd-{}", "x".repeat(20_000));
    sandbox.ask(&long, "\r\n").reply();
    for line in lines(&sandbox, "logged-odd") {
        assert!(!line.starts_with("forged") && line.len() < 2_000, "{line:?}");
        let escapes = ['\u{202e}', '\u{9b}'].iter().any(|it| line.contains(*it));
        assert!(!escapes, "{line:?}");
    }
}

#[test]
fn answers_are_counted() {
    let (sandbox, _recorder) = recorded(private());
    let forbidden = || {
        let answer = sandbox.stage.request("GET", "/metrics", &Value::Null);
        let named = "policy_gateway_requests_total{code=\"403\"} ";
        let line = answer.body.lines().find_map(|line| line.strip_prefix(named).map(str::to_owned));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    let before = forbidden();
    sandbox.ask("GET /", "\r\n").reply().is_of_gateway(403);
    // Other tests are refused as well.
    assert!(forbidden() > before);
}
