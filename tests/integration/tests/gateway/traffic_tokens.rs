//! Private public URLs: nothing reaches the sandbox without its token, and the token itself is not
//! forwarded.

use policy_testbed::{
    named_internet::curl::CurlCommand,
    public_url::{GATEWAY_CONFIG, SERVICE_PORT, TOKEN_NAME, recording_service::RecordingService},
    testbed::{OrFail as _, TestSandbox, Testbed},
};
use serde_json::json;

use crate::{private_network, recording_sandbox};

/// Requests to the sandbox's service over HTTP/1.1 and HTTP/2, plain and over TLS.
fn curl_every_way<'a>(sandbox: &'a TestSandbox, path: &str) -> [CurlCommand<'a>; 4] {
    [
        sandbox.curl_public_url("http", path).with_arguments(&["--http1.1"]),
        sandbox.curl_public_url("http", path).with_arguments(&["--http2-prior-knowledge"]),
        sandbox.curl_public_url("https", path).with_arguments(&["--http1.1"]),
        sandbox.curl_public_url("https", path).with_arguments(&["--http2"]),
    ]
}

#[test]
fn without_the_token_nothing_reaches_the_sandbox() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let (other, _others) = recording_sandbox(private_network());
    let (token, others) = (sandbox.traffic_token(), other.traffic_token());
    assert_ne!(token, others);
    let last = if token.ends_with('0') { "1" } else { "0" };
    let almost = format!("{}{last}", &token[..token.len() - 1]);
    let wrong = [
        "",
        " ",
        "x",
        &token[1..],
        &almost,
        &others,
        &token.to_uppercase(),
        &format!("{token}0"),
        &format!("Bearer {token}"),
        &format!("{token}, {token}"),
    ]
    .map(str::to_owned);
    for curl in curl_every_way(&sandbox, "/secret") {
        curl.run().assert_refused(403, "private");
    }
    for wrong in wrong.iter().filter(|wrong| **wrong != token) {
        let field = format!("{TOKEN_NAME}: {wrong}");
        sandbox
            .curl_public_url("http", "/")
            .with_arguments(&["-H", &field])
            .run()
            .assert_refused(403, "private");
        let encoded = wrong.replace(' ', "%20");
        let fetched = sandbox.curl_public_url("http", &format!("/?{TOKEN_NAME}={encoded}")).run();
        fetched.assert_refused(403, "private");
        let cookie = format!("{TOKEN_NAME}={wrong}");
        sandbox
            .curl_public_url("http", "/")
            .with_arguments(&["-b", &cookie])
            .run()
            .assert_refused(403, "private");
    }
    let (name, upper) =
        (format!("x-{TOKEN_NAME}: {token}"), format!("/?{}={token}", TOKEN_NAME.to_uppercase()));
    sandbox
        .curl_public_url("http", "/")
        .with_arguments(&["-H", &name])
        .run()
        .assert_refused(403, "private");
    sandbox.curl_public_url("http", &upper).run().assert_refused(403, "private");
    let authorization = format!("Authorization: Bearer {token}");
    sandbox
        .curl_public_url("http", "/")
        .with_arguments(&["-H", &authorization])
        .run()
        .assert_refused(403, "private");
    assert_eq!(recorder.connection_count(), 0);
}

#[test]
fn a_body_is_not_waited_for_without_the_token() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let mut talk = sandbox.send_public_request("POST /", "Content-Length: 1000000\r\n\r\n");
    talk.read_response().assert_from_gateway(403);
    assert_eq!(recorder.connection_count(), 0);
}

#[test]
fn the_token_may_come_in_three_ways_and_does_not_go_on() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let token = sandbox.traffic_token();
    let (field, cookie) = (format!("{TOKEN_NAME}: {token}"), format!("{TOKEN_NAME}={token}"));
    let mut expected = 0;
    let mut comes = |fetched: policy_testbed::named_internet::curl::CurlResult, target: &str| {
        expected += 1;
        assert_eq!(fetched.status, 200, "{fetched:?}");
        assert_eq!(recorder.request_heads().len(), expected);
        let line = format!("GET {target} HTTP/1.1\r\n");
        assert!(fetched.text().starts_with(&line), "{line:?} is not in {}", fetched.text());
        let text = recorder.received_text();
        assert!(!text.contains(&token) && !text.to_lowercase().contains(TOKEN_NAME), "{text}");
        fetched.text()
    };
    for curl in curl_every_way(&sandbox, "/a?b=1") {
        comes(curl.with_arguments(&["-H", &field]).run(), "/a?b=1");
    }
    let shouted = format!("{}: {token}", TOKEN_NAME.to_uppercase());
    comes(sandbox.curl_public_url("http", "/a").with_arguments(&["-H", &shouted]).run(), "/a");
    for (asked, target) in [
        (format!("/a?{TOKEN_NAME}={token}"), "/a"),
        (format!("/?{TOKEN_NAME}={token}&b=%20c&b"), "/?b=%20c&b"),
        (format!("/?b=1&{TOKEN_NAME}={token}"), "/?b=1"),
        (format!("/?b=1&{TOKEN_NAME}={token}&c=2&{TOKEN_NAME}={token}"), "/?b=1&c=2"),
    ] {
        for curl in curl_every_way(&sandbox, &asked) {
            comes(curl.run(), target);
        }
    }
    for curl in curl_every_way(&sandbox, "/c") {
        let seen = comes(curl.with_arguments(&["-b", &format!("x=1; {cookie}; y=2")]).run(), "/c");
        assert!(seen.to_lowercase().contains("\r\ncookie: x=1; y=2\r\n"), "{seen}");
    }
    let seen =
        comes(sandbox.curl_public_url("http", "/d").with_arguments(&["-b", &cookie]).run(), "/d");
    assert!(!seen.to_lowercase().contains("\r\ncookie:"), "{seen}");
    // A page opened with the token sends it in the Referer of its subresource requests.
    let referer = format!("http://{}/?{TOKEN_NAME}={token}", sandbox.public_host(SERVICE_PORT));
    comes(
        sandbox.curl_public_url("http", "/e").with_arguments(&["-H", &field, "-e", &referer]).run(),
        "/e",
    );
}

#[test]
fn a_public_url_needs_none_and_does_not_pass_one_on() {
    let (sandbox, recorder) = recording_sandbox(json!({ "allowPublicTraffic": true }));
    assert_eq!(sandbox.curl_public_url("http", "/").run().status, 200);
    let token = sandbox.traffic_token();
    let field = format!("{TOKEN_NAME}: {token}");
    for wrong in [&field, &format!("{TOKEN_NAME}: wrong")] {
        assert_eq!(
            sandbox.curl_public_url("http", "/").with_arguments(&["-H", wrong]).run().status,
            200
        );
    }
    let text = recorder.received_text();
    assert!(!text.contains(&token) && !text.to_lowercase().contains(TOKEN_NAME), "{text}");
}

#[test]
fn the_token_of_a_sandbox_lives_as_long_as_it_does() {
    let stage = Testbed::with_names(GATEWAY_CONFIG);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(private_network());
    let recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    let opens = |token: &str| {
        let field = format!("{TOKEN_NAME}: {token}");
        sandbox.curl_public_url("http", "/").with_arguments(&["-H", &field]).run().status
    };
    let token = sandbox.traffic_token();
    assert_eq!(opens(&token), 200);
    sandbox.apply_network(json!({}));
    sandbox.apply_network(private_network());
    assert_eq!(opens(&token), 200, "an update changes it");
    stage.stop_agent();
    stage.restart_agent();
    assert_eq!(opens(&token), 200, "a restart changes it");
    stage.kill_agent();
    stage.restart_agent();
    assert_eq!(opens(&token), 200, "a crash changes it");
    sandbox.delete();
    sandbox.apply_network(private_network());
    let came = recorder.connection_count();
    assert_eq!(opens(&token), 403, "another sandbox of the same name has it");
    assert_eq!(recorder.connection_count(), came);
    let next = sandbox.traffic_token();
    assert_ne!(next, token);
    assert_eq!(opens(&next), 200);
    let log = std::fs::read_to_string(stage.agent().log_path()).or_fail("the agent's log");
    assert!(!log.contains(&token) && !log.contains(&next), "the log knows a token");
}

#[test]
fn a_sandbox_that_turns_private_is_so_at_once() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let mut kept = sandbox.testbed.connect_to_gateway();
    assert_eq!(kept.send_get(&sandbox.public_host(SERVICE_PORT)).read_response().status, 200);
    sandbox.apply_network(private_network());
    kept.send_get(&sandbox.public_host(SERVICE_PORT)).read_response().assert_from_gateway(403);
    assert_eq!(recorder.request_heads().len(), 1);
    sandbox.apply_network(json!({}));
    assert_eq!(kept.send_get(&sandbox.public_host(SERVICE_PORT)).read_response().status, 200);
}
