//! Private public URLs in browsers: pages that load more than themselves, and scripts of other origins.

use policy_tests::{
    gateway::{PORT, TOKEN, recorder::Recorder},
    names::curl::Fetched,
    stage::Guest,
};
use serde_json::json;

use crate::{private, recorded};

/// The head of an answer, in small letters, and how often a line is in it.
fn head(fetched: &Fetched) -> String {
    fetched.text().split("\r\n\r\n").next().unwrap_or_default().to_lowercase() + "\r\n"
}

/// The value of a field of an answer.
#[track_caller]
fn field(fetched: &Fetched, name: &str) -> Option<String> {
    let text = fetched.text();
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    let value = values.next().map(|(_, value)| value.to_owned());
    assert_eq!(values.next(), None, "{name} twice: {text}");
    value
}

/// Fetches with these fields, as a browser would that follows nothing.
#[track_caller]
fn fetched(sandbox: &Guest, scheme: &str, path: &str, fields: &[&str]) -> Fetched {
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    sandbox.fetch(scheme, path).with(&fields).with(&["--include"]).run()
}

const PAGE: &str = "Accept: text/html,*/*;q=0.8";
const NAVIGATE: &str = "Sec-Fetch-Mode: navigate";

#[test]
fn who_opens_a_page_with_the_token_gets_it_as_a_cookie() {
    let (sandbox, recorder) = recorded(private());
    let token = sandbox.traffic_token();
    let url = format!("/a//b?x=1&{TOKEN}={token}&y=%22");
    for scheme in ["http", "https"] {
        for fields in [&[PAGE][..], &[NAVIGATE], &[PAGE, NAVIGATE, "Sec-Fetch-Dest: document"]] {
            let led = fetched(&sandbox, scheme, &url, fields);
            assert_eq!(led.status, 303, "{fields:?}: {led:?}");
            assert_eq!(field(&led, "location").as_deref(), Some("/a//b?x=1&y=%22"));
            let secure = if scheme == "https" { "; Secure" } else { "" };
            let cookie = format!("{TOKEN}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
            assert_eq!(field(&led, "set-cookie"), Some(cookie));
            assert_eq!(field(&led, "cache-control").as_deref(), Some("no-store"));
        }
    }
    assert_eq!(recorder.connections(), 0);
    // curl keeps cookies and follows, as browsers do.
    let followed = sandbox.fetch("http", &url).with(&["-H", PAGE, "-b", "", "--location"]).run();
    assert!(followed.text().starts_with("GET /a//b?x=1&y=%22 HTTP/1.1\r\n"), "{followed:?}");
    assert!(!recorder.text().contains(&token) && !recorder.text().contains(TOKEN));
}

#[test]
fn nobody_else_is_led_anywhere() {
    let (sandbox, _recorder) = recorded(private());
    let right = format!("/?{TOKEN}={}", sandbox.traffic_token());
    let status = |path: &str, fields: &[&str]| fetched(&sandbox, "http", path, fields).status;
    assert_eq!(status(&right, &[]), 200);
    assert_eq!(status(&right, &[PAGE, "Sec-Fetch-Mode: cors"]), 200);
    let framed = [PAGE, NAVIGATE, "Sec-Fetch-Dest: iframe", "Sec-Fetch-Site: cross-site"];
    assert_eq!(status(&right, &framed), 200, "a frame would not keep the cookie");
    assert_eq!(status(&format!("/?{TOKEN}=wrong"), &[PAGE, NAVIGATE]), 403);
    let field = format!("{TOKEN}: {}", sandbox.traffic_token());
    assert_eq!(status("/", &[PAGE, NAVIGATE, &field]), 200);
    let posted = sandbox.fetch("http", &right).with(&["-H", PAGE, "-d", "x"]).run();
    assert_eq!(posted.status, 200);
    sandbox.network(json!({}));
    assert_eq!(status(&right, &[PAGE, NAVIGATE]), 200, "a public one needs no cookie");
}

#[test]
fn nobody_is_led_to_another_host() {
    let (sandbox, _recorder) = recorded(private());
    let token = sandbox.traffic_token();
    let line = format!("GET //evil.test/x?{TOKEN}={token}");
    let mut talk = sandbox.ask(&line, &format!("{PAGE}\r\n\r\n"));
    let head = talk.until("\r\n\r\n").to_lowercase();
    assert!(head.contains("\r\nlocation: /.//evil.test/x\r\n"), "{head}");
}

const ORIGIN: &str = "Origin: https://app.example";

/// Asks whether a script may send a request.
#[track_caller]
fn preflight(sandbox: &Guest, path: &str, more: &[&str]) -> Fetched {
    let fields = [ORIGIN, "Access-Control-Request-Method: PUT"];
    let headers = format!("Access-Control-Request-Headers: {TOKEN},content-type");
    let fields: Vec<&str> = [&fields[..], &[&headers], more].concat();
    let fields: Vec<&str> = fields.into_iter().flat_map(|field| ["-H", field]).collect();
    sandbox.fetch("http", path).with(&fields).with(&["-X", "OPTIONS", "--include"]).run()
}

#[track_caller]
fn is_allowed(preflight: &Fetched) {
    assert_eq!(preflight.status, 204, "{preflight:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", &format!("{TOKEN},content-type")),
    ] {
        assert_eq!(field(preflight, name).as_deref(), Some(value), "{preflight:?}");
    }
    // Nor may a page of one sandbox act with the visitor's cookie for another.
    assert_eq!(field(preflight, "access-control-allow-credentials"), None);
    assert!(field(preflight, "vary").is_some_and(|vary| vary.contains("origin")));
}

#[test]
fn a_preflight_is_answered_and_reaches_nobody() {
    let (sandbox, recorder) = recorded(private());
    is_allowed(&preflight(&sandbox, "/", &[]));
    is_allowed(&preflight(&sandbox, &format!("/?{TOKEN}=wrong"), &[]));
    assert_eq!(recorder.connections(), 0);
    // With the token it is the service's to answer, as it is where the sandbox is public.
    let token = sandbox.traffic_token();
    assert_eq!(preflight(&sandbox, &format!("/?{TOKEN}={token}"), &[]).status, 200);
    sandbox.network(json!({}));
    assert_eq!(preflight(&sandbox, "/", &[]).status, 200);
    assert!(recorder.heads().iter().all(|head| head.starts_with("OPTIONS / ")));
}

#[test]
fn scripts_may_read_why_they_are_refused() {
    let (sandbox, recorder) = recorded(private());
    let refused = fetched(&sandbox, "http", "/", &[ORIGIN]);
    assert_eq!(refused.status, 403);
    let origin = field(&refused, "access-control-allow-origin");
    assert_eq!(origin.as_deref(), Some("https://app.example"));
    assert_eq!(field(&refused, "vary").as_deref(), Some("origin"));
    assert!(refused.text().contains("private"));
    let plain = head(&fetched(&sandbox, "http", "/", &[]));
    assert!(!plain.contains("access-control"), "{plain}");
    assert_eq!(recorder.connections(), 0);
}

#[test]
fn a_page_of_another_sandbox_cannot_act_with_the_visitors_cookie() {
    let (sandbox, recorder): (Guest, Recorder) = recorded(private());
    let token = sandbox.traffic_token();
    let (cookie, header) = (format!("Cookie: {TOKEN}={token}"), format!("{TOKEN}: {token}"));
    let status = |fields: &[&str]| fetched(&sandbox, "http", "/", fields).status;
    let other = format!("Origin: http://{PORT}-other.sandbox.test");
    assert_eq!(status(&[&cookie, &other]), 403);
    assert_eq!(recorder.connections(), 0);
    assert_eq!(status(&[&header, &other]), 200, "it has been given the token");
    for own in [sandbox.host(PORT), sandbox.host(PORT + 1), "app.example".to_owned()] {
        assert_eq!(status(&[&cookie, &format!("Origin: https://{own}")]), 200, "{own}");
    }
}
