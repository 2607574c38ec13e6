//! Private public URLs: nothing reaches the sandbox without its token, and the token does not either.

use policy_tests::{
    gateway::{CONFIG, PORT, TOKEN, recorder::Recorder},
    names::curl::Curl,
    stage::{Guest, OrFail as _, Stage},
};
use serde_json::json;

use crate::{private, recorded};

/// Asks the sandbox's service over HTTP/1.1 and HTTP/2, plain and inside TLS.
fn every_way<'a>(sandbox: &'a Guest, path: &str) -> [Curl<'a>; 4] {
    [
        sandbox.fetch("http", path).with(&["--http1.1"]),
        sandbox.fetch("http", path).with(&["--http2-prior-knowledge"]),
        sandbox.fetch("https", path).with(&["--http1.1"]),
        sandbox.fetch("https", path).with(&["--http2"]),
    ]
}

#[test]
fn without_the_token_nothing_reaches_the_sandbox() {
    let (sandbox, recorder) = recorded(private());
    let (other, _others) = recorded(private());
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
    for curl in every_way(&sandbox, "/secret") {
        curl.run().is_refused(403, "private");
    }
    for wrong in wrong.iter().filter(|wrong| **wrong != token) {
        let field = format!("{TOKEN}: {wrong}");
        sandbox.fetch("http", "/").with(&["-H", &field]).run().is_refused(403, "private");
        let encoded = wrong.replace(' ', "%20");
        let fetched = sandbox.fetch("http", &format!("/?{TOKEN}={encoded}")).run();
        fetched.is_refused(403, "private");
        let cookie = format!("{TOKEN}={wrong}");
        sandbox.fetch("http", "/").with(&["-b", &cookie]).run().is_refused(403, "private");
    }
    let (name, upper) =
        (format!("x-{TOKEN}: {token}"), format!("/?{}={token}", TOKEN.to_uppercase()));
    sandbox.fetch("http", "/").with(&["-H", &name]).run().is_refused(403, "private");
    sandbox.fetch("http", &upper).run().is_refused(403, "private");
    let authorization = format!("Authorization: Bearer {token}");
    sandbox.fetch("http", "/").with(&["-H", &authorization]).run().is_refused(403, "private");
    assert_eq!(recorder.connections(), 0);
}

#[test]
fn a_body_is_not_waited_for_without_the_token() {
    let (sandbox, recorder) = recorded(private());
    let mut talk = sandbox.ask("POST /", "Content-Length: 1000000\r\n\r\n");
    talk.reply().is_of_gateway(403);
    assert_eq!(recorder.connections(), 0);
}

#[test]
fn the_token_may_come_in_three_ways_and_does_not_go_on() {
    let (sandbox, recorder) = recorded(private());
    let token = sandbox.traffic_token();
    let (field, cookie) = (format!("{TOKEN}: {token}"), format!("{TOKEN}={token}"));
    let mut expected = 0;
    let mut comes = |fetched: policy_tests::names::curl::Fetched, target: &str| {
        expected += 1;
        assert_eq!(fetched.status, 200, "{fetched:?}");
        assert_eq!(recorder.heads().len(), expected);
        let line = format!("GET {target} HTTP/1.1\r\n");
        assert!(fetched.text().starts_with(&line), "{line:?} is not in {}", fetched.text());
        let text = recorder.text();
        assert!(!text.contains(&token) && !text.to_lowercase().contains(TOKEN), "{text}");
        fetched.text()
    };
    for curl in every_way(&sandbox, "/a?b=1") {
        comes(curl.with(&["-H", &field]).run(), "/a?b=1");
    }
    let shouted = format!("{}: {token}", TOKEN.to_uppercase());
    comes(sandbox.fetch("http", "/a").with(&["-H", &shouted]).run(), "/a");
    for (asked, target) in [
        (format!("/a?{TOKEN}={token}"), "/a"),
        (format!("/?{TOKEN}={token}&b=%20c&b"), "/?b=%20c&b"),
        (format!("/?b=1&{TOKEN}={token}"), "/?b=1"),
        (format!("/?b=1&{TOKEN}={token}&c=2&{TOKEN}={token}"), "/?b=1&c=2"),
    ] {
        for curl in every_way(&sandbox, &asked) {
            comes(curl.run(), target);
        }
    }
    for curl in every_way(&sandbox, "/c") {
        let seen = comes(curl.with(&["-b", &format!("x=1; {cookie}; y=2")]).run(), "/c");
        assert!(seen.to_lowercase().contains("\r\ncookie: x=1; y=2\r\n"), "{seen}");
    }
    let seen = comes(sandbox.fetch("http", "/d").with(&["-b", &cookie]).run(), "/d");
    assert!(!seen.to_lowercase().contains("\r\ncookie:"), "{seen}");
    // A page that was opened with the token names it to what it loads.
    let referer = format!("http://{}/?{TOKEN}={token}", sandbox.host(PORT));
    comes(sandbox.fetch("http", "/e").with(&["-H", &field, "-e", &referer]).run(), "/e");
}

#[test]
fn a_public_url_needs_none_and_does_not_pass_one_on() {
    let (sandbox, recorder) = recorded(json!({ "allowPublicTraffic": true }));
    assert_eq!(sandbox.fetch("http", "/").run().status, 200);
    let token = sandbox.traffic_token();
    let field = format!("{TOKEN}: {token}");
    for wrong in [&field, &format!("{TOKEN}: wrong")] {
        assert_eq!(sandbox.fetch("http", "/").with(&["-H", wrong]).run().status, 200);
    }
    let text = recorder.text();
    assert!(!text.contains(&token) && !text.to_lowercase().contains(TOKEN), "{text}");
}

#[test]
fn the_token_of_a_sandbox_lives_as_long_as_it_does() {
    let stage = Stage::with_names(CONFIG);
    let sandbox = stage.sandbox();
    sandbox.network(private());
    let recorder = Recorder::start(&sandbox.inside, PORT).or_fail("the recorder");
    let opens = |token: &str| {
        let field = format!("{TOKEN}: {token}");
        sandbox.fetch("http", "/").with(&["-H", &field]).run().status
    };
    let token = sandbox.traffic_token();
    assert_eq!(opens(&token), 200);
    sandbox.network(json!({}));
    sandbox.network(private());
    assert_eq!(opens(&token), 200, "an update changes it");
    stage.stop();
    stage.restart();
    assert_eq!(opens(&token), 200, "a restart changes it");
    stage.kill();
    stage.restart();
    assert_eq!(opens(&token), 200, "a crash changes it");
    sandbox.delete();
    sandbox.network(private());
    let came = recorder.connections();
    assert_eq!(opens(&token), 403, "another sandbox of the same name has it");
    assert_eq!(recorder.connections(), came);
    let next = sandbox.traffic_token();
    assert_ne!(next, token);
    assert_eq!(opens(&next), 200);
    let log = std::fs::read_to_string(stage.agent().log_file()).or_fail("the agent's log");
    assert!(!log.contains(&token) && !log.contains(&next), "the log knows a token");
}

#[test]
fn a_sandbox_that_turns_private_is_so_at_once() {
    let (sandbox, recorder) = recorded(json!({}));
    let mut kept = sandbox.stage.knock();
    assert_eq!(kept.get(&sandbox.host(PORT)).reply().status, 200);
    sandbox.network(private());
    kept.get(&sandbox.host(PORT)).reply().is_of_gateway(403);
    assert_eq!(recorder.heads().len(), 1);
    sandbox.network(json!({}));
    assert_eq!(kept.get(&sandbox.host(PORT)).reply().status, 200);
}
