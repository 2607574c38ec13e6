//! `rules.send_ca_to_envd`: the daemon in a sandbox is sent the sandbox's authority.

use std::{
    io::{Read as _, Write as _},
    thread,
};

use policy_testbed::{
    public_url::recording_service::RecordingService,
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
    wait::eventually,
};
use serde_json::{Value, json};

use super::authorization;

static TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[proxy]\nresolvers = [\"8.8.8.8:53\"]\n[rules]\nsend_ca_to_envd = true\n",
);

/// The port of envd.
const ENVD_PORT: u16 = 49983;

#[track_caller]
fn apply_rule(sandbox: &TestSandbox, value: &str) {
    sandbox.apply_network(json!({
        "allowOut": ["delivery.rules.example"], "denyOut": ["0.0.0.0/0"],
        "rules": { "delivery.rules.example": authorization(value) },
    }));
}

#[track_caller]
fn start_envd(sandbox: &TestSandbox) -> RecordingService {
    RecordingService::start(&sandbox.namespace, ENVD_PORT).or_fail("starting a service")
}

/// Waits for the request to envd, and returns the authority in it.
#[track_caller]
fn delivered_authority(envd: &RecordingService) -> Value {
    eventually("the authority is sent", || (!envd.request_heads().is_empty()).then_some(()))
        .or_fail("waiting");
    assert_eq!(envd.only_request()[0], "POST /init HTTP/1.1");
    let text = envd.received_text();
    let (_, body) = text.split_once("\r\n\r\n").or_fail("a body");
    let body: Value = serde_json::from_str(body).or_fail("JSON");
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    body["caBundle"].clone()
}

#[test]
fn envd_is_sent_the_authority_once_a_sandbox_has_rules() {
    let (first, second) = (TESTBED.add_sandbox(), TESTBED.add_sandbox());
    let (first_envd, second_envd) = (start_envd(&first), start_envd(&second));
    first.allow_only(&["delivery.rules.example"]);
    apply_rule(&first, "one");
    assert_eq!(delivered_authority(&first_envd), first.fetch_authority());
    apply_rule(&first, "another");
    // The delivery is told of both changes.
    apply_rule(&second, "one");
    assert_eq!(delivered_authority(&second_envd), second.fetch_authority());
    assert_eq!(first_envd.connection_count(), 1);
}

#[test]
fn an_envd_that_starts_late_is_waited_for() {
    let sandbox = TESTBED.add_sandbox();
    apply_rule(&sandbox, "one");
    let envd = start_envd(&sandbox);
    assert_eq!(delivered_authority(&envd), sandbox.fetch_authority());
}

#[test]
fn an_envd_that_refuses_the_authority_is_named_in_the_log() {
    let sandbox = TESTBED.add_sandbox();
    let listener = {
        let _inside = sandbox.namespace.enter().or_fail("entering the sandbox");
        std::net::TcpListener::bind(("0.0.0.0", ENVD_PORT)).or_fail("a listener")
    };
    let refusing = thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        // All of it: closing a socket with unread bytes resets the connection.
        let (mut request, mut chunk) = (String::new(), [0; 4096]);
        while !request.ends_with('}') {
            let length = stream.read(&mut chunk)?;
            request += &String::from_utf8_lossy(&chunk[..length]);
        }
        stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    });
    apply_rule(&sandbox, "one");
    refusing.join().ok().or_fail("the service").or_fail("answering");
    let id = &*sandbox.id;
    let is_named = |line: &str| {
        line.contains("envd does not have the sandbox's CA")
            && line.contains(&format!("policy-agent ca {id}"))
            && line.contains("POST /init: answered with 401 Unauthorized")
    };
    let log = || sandbox.testbed.agent_log();
    eventually("it is logged", || log().lines().any(is_named).then_some(())).or_fail(&log());
}
