//! Private public URLs in browsers: pages that load subresources, and scripts of other origins.

use policy_testbed::{
    named_internet::curl::CurlResult,
    public_url::{SERVICE_PORT, TOKEN_NAME, recording_service::RecordingService},
    testbed::TestSandbox,
};
use serde_json::json;

use crate::{private_network, recording_sandbox};

/// The head of a response in lower case.
fn response_head(fetched: &CurlResult) -> String {
    fetched.text().split("\r\n\r\n").next().unwrap_or_default().to_lowercase() + "\r\n"
}

/// The value of a response field.
#[track_caller]
fn response_field(fetched: &CurlResult, name: &str) -> Option<String> {
    let text = fetched.text();
    let head = text.split("\r\n\r\n").next().unwrap_or_default();
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    let value = values.next().map(|(_, value)| value.to_owned());
    assert_eq!(values.next(), None, "{name} twice: {text}");
    value
}

/// Sends a request with these fields, as a browser would, without following redirects.
#[track_caller]
fn fetch_with_fields(
    sandbox: &TestSandbox,
    scheme: &str,
    path: &str,
    fields: &[&str],
) -> CurlResult {
    let fields: Vec<&str> = fields.iter().flat_map(|field| ["-H", field]).collect();
    sandbox
        .curl_public_url(scheme, path)
        .with_arguments(&fields)
        .with_arguments(&["--include"])
        .run()
}

const ACCEPT_HTML: &str = "Accept: text/html,*/*;q=0.8";
const NAVIGATE_MODE: &str = "Sec-Fetch-Mode: navigate";

#[test]
fn who_opens_a_page_with_the_token_gets_it_as_a_cookie() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let token = sandbox.traffic_token();
    let url = format!("/a//b?x=1&{TOKEN_NAME}={token}&y=%22");
    for scheme in ["http", "https"] {
        for fields in [
            &[ACCEPT_HTML][..],
            &[NAVIGATE_MODE],
            &[ACCEPT_HTML, NAVIGATE_MODE, "Sec-Fetch-Dest: document"],
        ] {
            let led = fetch_with_fields(&sandbox, scheme, &url, fields);
            assert_eq!(led.status, 303, "{fields:?}: {led:?}");
            assert_eq!(response_field(&led, "location").as_deref(), Some("/a//b?x=1&y=%22"));
            let secure = if scheme == "https" { "; Secure" } else { "" };
            let cookie = format!("{TOKEN_NAME}={token}; Path=/; HttpOnly; SameSite=Lax{secure}");
            assert_eq!(response_field(&led, "set-cookie"), Some(cookie));
            assert_eq!(response_field(&led, "cache-control").as_deref(), Some("no-store"));
        }
    }
    assert_eq!(recorder.connection_count(), 0);
    // curl keeps cookies and follows redirects, as browsers do.
    let followed = sandbox
        .curl_public_url("http", &url)
        .with_arguments(&["-H", ACCEPT_HTML, "-b", "", "--location"])
        .run();
    assert!(followed.text().starts_with("GET /a//b?x=1&y=%22 HTTP/1.1\r\n"), "{followed:?}");
    assert!(
        !recorder.received_text().contains(&token)
            && !recorder.received_text().contains(TOKEN_NAME)
    );
}

#[test]
fn nobody_else_is_redirected() {
    let (sandbox, _recorder) = recording_sandbox(private_network());
    let right = format!("/?{TOKEN_NAME}={}", sandbox.traffic_token());
    let status =
        |path: &str, fields: &[&str]| fetch_with_fields(&sandbox, "http", path, fields).status;
    assert_eq!(status(&right, &[]), 200);
    assert_eq!(status(&right, &[ACCEPT_HTML, "Sec-Fetch-Mode: cors"]), 200);
    let framed =
        [ACCEPT_HTML, NAVIGATE_MODE, "Sec-Fetch-Dest: iframe", "Sec-Fetch-Site: cross-site"];
    assert_eq!(status(&right, &framed), 200, "a frame would not keep the cookie");
    assert_eq!(status(&format!("/?{TOKEN_NAME}=wrong"), &[ACCEPT_HTML, NAVIGATE_MODE]), 403);
    let field = format!("{TOKEN_NAME}: {}", sandbox.traffic_token());
    assert_eq!(status("/", &[ACCEPT_HTML, NAVIGATE_MODE, &field]), 200);
    let posted = sandbox
        .curl_public_url("http", &right)
        .with_arguments(&["-H", ACCEPT_HTML, "-d", "x"])
        .run();
    assert_eq!(posted.status, 200);
    sandbox.apply_network(json!({}));
    assert_eq!(status(&right, &[ACCEPT_HTML, NAVIGATE_MODE]), 200, "a public one needs no cookie");
}

#[test]
fn nobody_is_redirected_to_another_host() {
    let (sandbox, _recorder) = recording_sandbox(private_network());
    let token = sandbox.traffic_token();
    let line = format!("GET //evil.test/x?{TOKEN_NAME}={token}");
    let mut talk = sandbox.send_public_request(&line, &format!("{ACCEPT_HTML}\r\n\r\n"));
    let head = talk.read_until("\r\n\r\n").to_lowercase();
    assert!(head.contains("\r\nlocation: /.//evil.test/x\r\n"), "{head}");
}

const FOREIGN_ORIGIN: &str = "Origin: https://app.example";

/// Sends a CORS preflight request.
#[track_caller]
fn send_preflight(sandbox: &TestSandbox, path: &str, more: &[&str]) -> CurlResult {
    let fields = [FOREIGN_ORIGIN, "Access-Control-Request-Method: PUT"];
    let headers = format!("Access-Control-Request-Headers: {TOKEN_NAME},content-type");
    let fields: Vec<&str> = [&fields[..], &[&headers], more].concat();
    let fields: Vec<&str> = fields.into_iter().flat_map(|field| ["-H", field]).collect();
    sandbox
        .curl_public_url("http", path)
        .with_arguments(&fields)
        .with_arguments(&["-X", "OPTIONS", "--include"])
        .run()
}

#[track_caller]
fn assert_preflight_allowed(preflight: &CurlResult) {
    assert_eq!(preflight.status, 204, "{preflight:?}");
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "PUT"),
        ("access-control-allow-headers", &format!("{TOKEN_NAME},content-type")),
    ] {
        assert_eq!(response_field(preflight, name).as_deref(), Some(value), "{preflight:?}");
    }
    // A page of one sandbox must not use the visitor's cookie for another sandbox.
    assert_eq!(response_field(preflight, "access-control-allow-credentials"), None);
    assert!(response_field(preflight, "vary").is_some_and(|vary| vary.contains("origin")));
}

#[test]
fn a_preflight_is_answered_and_reaches_nobody() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    assert_preflight_allowed(&send_preflight(&sandbox, "/", &[]));
    assert_preflight_allowed(&send_preflight(&sandbox, &format!("/?{TOKEN_NAME}=wrong"), &[]));
    assert_eq!(recorder.connection_count(), 0);
    // With the token, the service handles the preflight, as in a public sandbox.
    let token = sandbox.traffic_token();
    assert_eq!(send_preflight(&sandbox, &format!("/?{TOKEN_NAME}={token}"), &[]).status, 200);
    sandbox.apply_network(json!({}));
    assert_eq!(send_preflight(&sandbox, "/", &[]).status, 200);
    assert!(recorder.request_heads().iter().all(|head| head.starts_with("OPTIONS / ")));
}

#[test]
fn scripts_may_read_why_they_are_refused() {
    let (sandbox, recorder) = recording_sandbox(private_network());
    let refused = fetch_with_fields(&sandbox, "http", "/", &[FOREIGN_ORIGIN]);
    assert_eq!(refused.status, 403);
    let origin = response_field(&refused, "access-control-allow-origin");
    assert_eq!(origin.as_deref(), Some("https://app.example"));
    assert_eq!(response_field(&refused, "vary").as_deref(), Some("origin"));
    assert!(refused.text().contains("private"));
    let plain = response_head(&fetch_with_fields(&sandbox, "http", "/", &[]));
    assert!(!plain.contains("access-control"), "{plain}");
    assert_eq!(recorder.connection_count(), 0);
}

#[test]
fn a_page_of_another_sandbox_cannot_act_with_the_visitors_cookie() {
    let (sandbox, recorder): (TestSandbox, RecordingService) = recording_sandbox(private_network());
    let token = sandbox.traffic_token();
    let (cookie, header) =
        (format!("Cookie: {TOKEN_NAME}={token}"), format!("{TOKEN_NAME}: {token}"));
    let status = |fields: &[&str]| fetch_with_fields(&sandbox, "http", "/", fields).status;
    let other = format!("Origin: http://{SERVICE_PORT}-other.sandbox.test");
    assert_eq!(status(&[&cookie, &other]), 403);
    assert_eq!(recorder.connection_count(), 0);
    assert_eq!(status(&[&header, &other]), 200, "it has been given the token");
    for own in [
        sandbox.public_host(SERVICE_PORT),
        sandbox.public_host(SERVICE_PORT + 1),
        "app.example".to_owned(),
    ] {
        assert_eq!(status(&[&cookie, &format!("Origin: https://{own}")]), 200, "{own}");
    }
}
