//! The daemon of E2B's SDKs in a sandbox, which checks access itself.

use policy_tests::{
    gateway::{self, CONFIG, PORT, TOKEN, frames::Outcome, recorder::Recorder},
    names::raw::Reply,
    stage::{Guest, OrFail as _, Stage},
};
use serde_json::{Value, json};

use crate::{private, sandbox};

/// Where it listens.
const ENVD: u16 = 49983;

/// What it does for the operator alone.
const OPERATORS: [&str; 7] =
    ["/init", "/collapse", "/freeze", "/unfreeze", "/fsfreeze", "/fsthaw", "/upgrade"];

/// A sandbox with something at the daemon's port.
#[track_caller]
fn with_daemon(network: Value) -> (Guest, Recorder) {
    let sandbox = sandbox(network);
    let daemon = Recorder::start(&sandbox.inside, ENVD).or_fail("starting the daemon");
    (sandbox, daemon)
}

/// Asks a port of a sandbox that need not exist.
#[track_caller]
fn asked(stage: &Stage, host: &str, line: &str, fields: &str) -> Reply {
    stage.knock().say(format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).reply()
}

#[test]
fn token_and_host_mask_do_not_apply_to_it() {
    let network = json!({ "allowPublicTraffic": false, "maskRequestHost": "localhost:${PORT}" });
    let (sandbox, daemon) = with_daemon(network);
    let _service = Recorder::start(&sandbox.inside, PORT).or_fail("a service beside it");
    let host = sandbox.host(ENVD);
    let reply = asked(&sandbox.stage, &host, "POST /process.Process/Start", "");
    assert_eq!(reply.status, 200, "{reply:?}");
    let expected = format!("host: {host}");
    assert!(daemon.only().iter().any(|line| line.to_lowercase() == expected), "{reply:?}");
    asked(&sandbox.stage, &sandbox.host(PORT), "GET /", "").is_of_gateway(403);
    let token = format!("{TOKEN}: {}\r\n", sandbox.traffic_token());
    let masked = asked(&sandbox.stage, &sandbox.host(PORT), "GET /", &token);
    assert!(masked.body.to_lowercase().contains("host: localhost:3000\r\n"), "{masked:?}");
    asked(&sandbox.stage, &host, "GET /", &token);
    assert!(!daemon.text().to_lowercase().contains(TOKEN), "{}", daemon.text());
}

#[test]
fn what_is_the_operators_is_not_reached() {
    let (sandbox, daemon) = with_daemon(json!({}));
    let stage = &sandbox.stage;
    let (known, unknown) = (sandbox.host(ENVD), gateway::host("nobody", ENVD));
    let spellings = [
        "/INIT",
        "/init/",
        "/init?x=y",
        "//init",
        "/%69nit",
        "/%2569nit",
        "/%2finit",
        "/init%2F",
        "/./init",
        "/x/../init",
        "/x%2f%2e%2e%2finit",
        "/init//..",
        "/init;a=b",
        "/x\\..\\init",
        "/init%00",
        "/init#x",
    ];
    for path in OPERATORS.iter().chain(&spellings) {
        for method in ["GET", "POST", "PUT", "DELETE", "OPTIONS", "FREEZE"] {
            let line = format!("{method} {path}");
            let [one, other] = [&known, &unknown].map(|host| asked(stage, host, &line, ""));
            assert_eq!((one.status, other.status), (404, 404), "{line}: {one:?} {other:?}");
            assert_eq!(one.page()["message"], other.page()["message"], "{line}");
        }
    }
    let absolute = format!("POST http://{known}/init");
    asked(stage, &known, &absolute, "").is_of_gateway(404);
    let named = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: {ENVD}\r\n", sandbox.id);
    asked(stage, "localhost", "POST /init", &named).is_of_gateway(404);
    let older = format!("{ENVD}-{}-any.{}", sandbox.id, gateway::DOMAIN);
    asked(stage, &older, "POST /init", "").is_of_gateway(404);
    let fields = [(":method", "POST"), (":scheme", "http"), (":authority", &*known)];
    for path in ["/init", "//init", "/x/../%69nit/"] {
        let outcome = stage.frames().request(&[&fields[..], &[(":path", path)]].concat(), "");
        assert_eq!(outcome, Outcome::Answered(404), "{path}");
    }
    assert_eq!(daemon.connections(), 0);
    for path in ["/health", "/initial", "/init/x", "/files/init", "/files?path=/init"] {
        let reply = asked(stage, &known, &format!("GET {path}"), "");
        assert!(reply.body.starts_with(&format!("GET {path} ")), "{path}: {reply:?}");
    }
}

#[test]
fn these_paths_are_ordinary_elsewhere() {
    let (sandbox, _daemon) = with_daemon(json!({}));
    let service = Recorder::start(&sandbox.inside, PORT).or_fail("a service");
    for path in OPERATORS {
        let reply = asked(&sandbox.stage, &sandbox.host(PORT), &format!("POST {path}"), "");
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
    }
    assert_eq!(service.heads().len(), OPERATORS.len());
}

#[test]
fn the_operator_says_where_it_is_if_anywhere() {
    for (port, [at_usual, at_other]) in [(0, [403, 403]), (4000, [403, 200])] {
        let stage = Stage::with_names(&format!("{CONFIG}envd_port = {port}\n"));
        let sandbox = stage.sandbox();
        sandbox.network(private());
        let _usual = Recorder::start(&sandbox.inside, ENVD).or_fail("one at the usual port");
        let _other = Recorder::start(&sandbox.inside, 4000).or_fail("one at another");
        let status = |port, line: &str| asked(&stage, &sandbox.host(port), line, "").status;
        assert_eq!(status(ENVD, "GET /"), at_usual, "{port}");
        assert_eq!(status(4000, "GET /"), at_other, "{port}");
        assert_eq!(status(4000, "POST /init"), if port == 0 { 403 } else { 404 });
    }
}
