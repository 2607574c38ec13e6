//! Changes of rules while connections are open.

use std::io::{Read as _, Write as _};

use policy_testbed::testbed::OrFail as _;
use serde_json::{Value, json};

use super::{
    CREDENTIAL, RuleScenario, authorization,
    trusting_client::{Http2Client, TlsClient, connect_tls},
};

/// Sends a request on a connection, and returns the status of the response. 0 if there is none.
fn status_of(tls: &mut TlsClient, scenario: &RuleScenario) -> u16 {
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scenario.name());
    if tls.write_all(request.as_bytes()).is_err() {
        return 0;
    }
    let mut answer = Vec::new();
    while !answer.ends_with(b"an answer\n") {
        let mut byte = [0];
        match tls.read(&mut byte) {
            Ok(1) => answer.extend(byte),
            _ => break,
        }
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[test]
fn another_value_holds_for_the_next_request_of_an_open_connection() {
    let scenario = RuleScenario::new("value.rules.example");
    let (mut http1, mut http2) = (connect_tls(&scenario), Http2Client::connect(&scenario));
    assert_eq!(status_of(&mut http1, &scenario), 200);
    assert_eq!(http2.get(&scenario.url("/")).0.status(), 200);
    scenario.apply_rules(&json!({ scenario.name(): authorization("another") }));
    assert_eq!(status_of(&mut http1, &scenario), 200);
    assert_eq!(http2.get(&scenario.url("/")).0.status(), 200);
    let values: Vec<_> =
        scenario.origin.requests().iter().flat_map(|seen| seen.values("authorization")).collect();
    assert_eq!(values, [CREDENTIAL, CREDENTIAL, "another", "another"]);
}

#[test]
fn a_rule_that_goes_closes_its_connections() {
    let scenario = RuleScenario::new("gone.rules.example");
    let mut tls = connect_tls(&scenario);
    assert_eq!(status_of(&mut tls, &scenario), 200);
    scenario.apply_rules(&json!({}));
    assert_eq!(status_of(&mut tls, &scenario), 0);
    // The server itself answers now.
    assert_eq!(scenario.sandbox.curl(&scenario.url("/")).run().status, 200);
    assert!(scenario.origin.requests()[1].values("authorization").is_empty());
}

#[test]
fn a_name_that_is_no_longer_allowed_closes_its_connections() {
    let scenario = RuleScenario::new("tightened.rules.example");
    let mut tls = connect_tls(&scenario);
    assert_eq!(status_of(&mut tls, &scenario), 200);
    scenario.sandbox.apply_network(json!({
        "allowOut": ["elsewhere.example"], "denyOut": ["0.0.0.0/0"],
        "rules": { scenario.name(): authorization(CREDENTIAL) },
    }));
    assert_eq!(status_of(&mut tls, &scenario), 0);
    assert_eq!(scenario.origin.requests().len(), 1);
}

#[test]
fn a_rule_that_comes_closes_the_connections_that_it_would_have_opened() {
    let scenario = RuleScenario::new("new.rules.example");
    scenario.apply_rules(&json!({}));
    let config = scenario.sandbox.testbed.named_internet().authority.client_config();
    let stream = policy_testbed::probe::connect(
        &scenario.sandbox.namespace,
        (scenario.origin.site.v4, policy_testbed::test_servers::HTTPS_PORT).into(),
    );
    let name = scenario.name().to_owned().try_into().or_fail("a name");
    let client = rustls::ClientConnection::new(config.or_fail("a client").into(), name);
    let mut tls =
        rustls::StreamOwned::new(client.or_fail("a client"), stream.or_fail("connecting"));
    assert_eq!(status_of(&mut tls, &scenario), 200);
    scenario.apply_rules(&json!({ scenario.name(): authorization(CREDENTIAL) }));
    assert_eq!(status_of(&mut tls, &scenario), 0);
    assert_eq!(scenario.curl("/").run().status, 200);
    assert_eq!(scenario.origin.requests()[1].values("authorization"), [CREDENTIAL]);
}

/// Creates a secret, gives it another value, or deletes it.
#[track_caller]
fn change_secret(scenario: &RuleScenario, method: &str, name: &str, body: &Value) {
    let path =
        if body.get("name").is_some() { "/secrets".into() } else { format!("/secrets/{name}") };
    let answer = scenario.sandbox.testbed.request(method, &path, body);
    assert!(answer.status < 300, "{method} {path}: {} {}", answer.status, answer.body);
}

#[test]
fn a_secrets_value_is_that_of_the_moment_and_nobody_else_sees_it() {
    let scenario = RuleScenario::new("secret.rules.example");
    let value = "Bearer ${e2b.secrets.rotated}!";
    scenario.apply_rules(&json!({ scenario.name(): authorization(value) }));
    let secret = json!({ "name": "rotated", "value": "first-of-the-operator" });
    change_secret(&scenario, "POST", "rotated", &secret);
    let (mut http1, mut http2) = (connect_tls(&scenario), Http2Client::connect(&scenario));
    assert_eq!(status_of(&mut http1, &scenario), 200);
    change_secret(&scenario, "POST", "rotated", &json!({ "value": "second-of-the-operator" }));
    assert_eq!(status_of(&mut http1, &scenario), 200);
    assert_eq!(http2.get(&scenario.url("/")).0.status(), 200);
    let values: Vec<_> =
        scenario.origin.requests().iter().flat_map(|seen| seen.values("authorization")).collect();
    let [first, second] =
        ["first", "second"].map(|which| format!("Bearer {which}-of-the-operator!"));
    assert_eq!(values, [first, second.clone(), second]);
    change_secret(&scenario, "DELETE", "rotated", &Value::Null);
    let (head, body) = http2.get(&scenario.url("/"));
    assert_eq!(head.status(), 502, "{body}");
    assert!(body.contains("secret_unknown"), "{body}");
    assert_eq!(status_of(&mut http1, &scenario), 502, "on a connection that was kept alive");
    assert_eq!(scenario.origin.requests().len(), 3);
    let log = std::fs::read_to_string(scenario.sandbox.testbed.agent().log_path());
    assert!(!log.or_fail("the agent's log").contains("-of-the-operator"));
    let events = scenario.sandbox.testbed.cli(&["events", "--sandbox", &scenario.sandbox.id]);
    assert!(!events.stdout.contains("-of-the-operator"), "{}", events.stdout);
}

#[test]
fn a_secret_with_line_breaks_is_never_sent() {
    let scenario = RuleScenario::new("lines.rules.example");
    let value = "${e2b.secrets.lines}";
    scenario.apply_rules(&json!({ scenario.name(): authorization(value) }));
    let secret = json!({ "name": "lines", "value": "a\r\nX-Injected: b" });
    change_secret(&scenario, "POST", "lines", &secret);
    let refused = scenario.curl("/").run();
    refused.assert_refused(502, "secret_unknown");
    assert!(!refused.text().contains("X-Injected"), "{}", refused.text());
    assert!(scenario.origin.requests().is_empty());
}

#[test]
fn a_secret_that_does_not_exist_refuses_the_request() {
    let scenario = RuleScenario::new("unknown.rules.example");
    let value = "Bearer ${e2b.secrets.nobody-made-it}";
    scenario.apply_rules(&json!({ scenario.name(): authorization(value) }));
    let refused = scenario.curl("/").run();
    refused.assert_refused(502, "secret_unknown");
    assert!(refused.text().contains("nobody-made-it"), "{}", refused.text());
    assert!(scenario.origin.requests().is_empty());
    scenario.sandbox.assert_name_denied(scenario.name(), "secret_unknown");
    let metrics = scenario.sandbox.testbed.request("GET", "/metrics", &Value::Null);
    let id = &scenario.sandbox.id;
    let failed = format!("policy_proxy_requests_total{{sandbox=\"{id}\",decision=\"failed\"}} 1");
    assert!(metrics.body.contains(&failed), "{}", metrics.body);
}
