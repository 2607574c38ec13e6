//! Traffic tokens that expire: several open a private sandbox at once, beside its own.

use policy_testbed::{
    public_url::{GATEWAY_CONFIG, SERVICE_PORT, TOKEN_NAME, recording_service::RecordingService},
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

use crate::{private_network, recording_sandbox};

/// Asks the agent for a token.
#[track_caller]
fn issue(sandbox: &TestSandbox, body: &Value) -> (u16, Value) {
    let path = format!("/agent/v1/sandboxes/{}/token", sandbox.id);
    let answer = sandbox.testbed.request("POST", &path, body);
    (answer.status, answer.json())
}

/// A token that is valid for so many seconds.
#[track_caller]
fn issue_token(sandbox: &TestSandbox, seconds: u32) -> String {
    let (status, answer) = issue(sandbox, &json!({ "expiresIn": seconds }));
    assert_eq!(status, 201, "{answer}");
    assert!(answer["expiresAt"].is_string(), "{answer}");
    answer["trafficAccessToken"].as_str().or_fail("a token").to_owned()
}

/// A private sandbox whose agent the test may restart, and its service.
#[track_caller]
fn sandbox_of_own_agent() -> (TestSandbox, RecordingService) {
    let sandbox = Testbed::with_names(GATEWAY_CONFIG).add_sandbox();
    sandbox.apply_network(private_network());
    let recorder = RecordingService::start(&sandbox.namespace, SERVICE_PORT);
    (sandbox, recorder.or_fail("the recorder"))
}

/// The status of a request with a token.
#[track_caller]
fn status_with(sandbox: &TestSandbox, token: &str) -> u16 {
    let field = format!("{TOKEN_NAME}: {token}\r\n\r\n");
    sandbox.send_public_request("GET /", &field).read_response().status
}

#[test]
fn a_token_opens_the_sandbox_until_it_expires() {
    let (sandbox, _recorder) = recording_sandbox(private_network());
    let (other, _others) = recording_sandbox(private_network());
    let (long, short) = (issue_token(&sandbox, 3600), issue_token(&sandbox, 2));
    assert_ne!(long, short);
    assert_eq!(status_with(&sandbox, &long), 200);
    let expired = || (status_with(&sandbox, &short) == 403).then_some(());
    eventually("the token expires", expired).or_fail("waiting for the end of a token");
    assert_eq!(status_with(&sandbox, &long), 200);
    assert_eq!(status_with(&sandbox, &sandbox.traffic_token()), 200);
    assert_eq!(status_with(&other, &long), 403, "it is for one sandbox");
}

#[test]
fn revoked_tokens_open_nothing_also_after_a_restart() {
    let (sandbox, _recorder) = sandbox_of_own_agent();
    let stage = &sandbox.testbed;
    let tokens = [issue_token(&sandbox, 3600), issue_token(&sandbox, 3600)];
    let path = format!("/agent/v1/sandboxes/{}/token", sandbox.id);
    assert_eq!(stage.request("DELETE", &path, &Value::Null).status, 204);
    assert_eq!(tokens.each_ref().map(|token| status_with(&sandbox, token)), [403, 403]);
    assert_eq!(status_with(&sandbox, &sandbox.traffic_token()), 200, "its own stays");
    stage.kill_agent();
    stage.restart_agent();
    sandbox.apply_network(private_network());
    assert_eq!(tokens.each_ref().map(|token| status_with(&sandbox, token)), [403, 403]);
    let unknown = "/agent/v1/sandboxes/unknown/token";
    assert_eq!(stage.request("DELETE", unknown, &Value::Null).status, 404);
}

#[test]
fn a_browser_gets_an_issued_token_as_a_cookie() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let token = issue_token(&sandbox, 3600);
    let page = format!("GET /?{TOKEN_NAME}={token}");
    let mut talk = sandbox.send_public_request(&page, "Accept: text/html\r\n\r\n");
    assert_eq!(talk.read_response().status, 303);
    let cookie = format!("Cookie: {TOKEN_NAME}={token}\r\n\r\n");
    talk.send(sandbox.public_request_text("GET /", &cookie));
    assert_eq!(talk.read_response().status, 200);
    assert!(!recorder.received_text().contains(&token));
}

#[test]
fn issued_tokens_outlive_the_agent_and_are_not_logged() {
    let (sandbox, _recorder) = sandbox_of_own_agent();
    let stage = &sandbox.testbed;
    let (first, second) = (issue_token(&sandbox, 3600), issue_token(&sandbox, 3600));
    stage.kill_agent();
    stage.restart_agent();
    sandbox.apply_network(private_network());
    for token in [&first, &second] {
        assert_eq!(status_with(&sandbox, token), 200);
    }
    sandbox.delete();
    sandbox.apply_network(private_network());
    assert_eq!(status_with(&sandbox, &first), 403, "another sandbox of the same name has it");
    let log = std::fs::read_to_string(stage.agent().log_path()).or_fail("the agent's log");
    assert!(!log.contains(&first) && !log.contains(&second), "the log knows a token");
}

#[test]
fn what_cannot_be_issued_is_refused() {
    let (sandbox, _recorder) = recording_sandbox(private_network());
    for (body, named) in [
        (json!({}), "expiresIn"),
        (json!({ "expiresIn": 0 }), "expiresIn"),
        (json!({ "expiresIn": 1.5 }), "expiresIn"),
        (json!({ "expiresIn": 2_592_001 }), "2592000"),
        (json!({ "expires_in": 60 }), "expires_in"),
    ] {
        let (status, answer) = issue(&sandbox, &body);
        let message = answer["message"].as_str().unwrap_or_default();
        assert!(status == 400 && message.contains(named), "{body}: {answer}");
    }
    for _ in 0..64 {
        issue_token(&sandbox, 3600);
    }
    let (status, answer) = issue(&sandbox, &json!({ "expiresIn": 60 }));
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(status == 400 && message.contains("64 tokens"), "{answer}");
    let unknown = sandbox.testbed.request(
        "POST",
        "/agent/v1/sandboxes/unknown/token",
        &json!({ "expiresIn": 60 }),
    );
    assert_eq!(unknown.status, 404);
}
