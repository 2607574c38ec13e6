//! The HTTP API: its paths, its answers, its errors.

use policy_tests::{
    agent::Answer,
    probe::Seen,
    server,
    stage::{Guest, OrFail as _, Shared},
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");

fn own_path(sandbox: &Guest) -> String {
    format!("/agent/v1/sandboxes/{}", sandbox.id)
}

/// `PUT /sandboxes/{id}/network`
fn update(sandbox: &Guest, network: &Value) -> Answer {
    sandbox.stage.request("PUT", &format!("/sandboxes/{}/network", sandbox.id), network)
}

#[test]
fn the_health_of_the_agent() {
    let answer = STAGE.stage().request("GET", "/health", &Value::Null);
    assert_eq!(answer.code, 200);
}

#[test]
fn an_update_replaces_all_egress_fields() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    let updated = update(&sandbox, &json!({ "denyOut": ["8.8.8.8"] }));
    assert_eq!((updated.code, updated.body.as_str()), (204, ""));
    sandbox.is_refused("8.8.8.8");
    sandbox.reaches("1.1.1.1");
    sandbox.reaches("198.51.100.7");
    assert_eq!(update(&sandbox, &json!({})).code, 204);
    sandbox.reaches("8.8.8.8");
}

#[test]
fn an_update_leaves_ingress_fields_alone() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({
        "denyOut": ["8.8.8.8"],
        "allowPublicTraffic": false,
        "maskRequestHost": "localhost:${PORT}",
        "httpsPorts": [8443],
    }));
    assert_eq!(update(&sandbox, &json!({ "denyOut": ["1.1.1.1"] })).code, 204);
    let network = &sandbox.status()["network"];
    assert_eq!(network["denyOut"], json!(["1.1.1.1"]));
    assert_eq!(network["allowPublicTraffic"], false);
    assert_eq!(network["maskRequestHost"], "localhost:${PORT}");
    assert_eq!(network["httpsPorts"], json!([8443]));
}

#[test]
fn an_update_carries_internet_access_and_omitted_lifts_it() {
    let sandbox = STAGE.sandbox();
    sandbox.configure(&json!({ "allowInternetAccess": false }));
    sandbox.is_refused("8.8.8.8");
    assert_eq!(update(&sandbox, &json!({})).code, 204);
    sandbox.reaches("8.8.8.8");
    assert_eq!(update(&sandbox, &json!({ "allow_internet_access": false })).code, 204);
    sandbox.is_refused("8.8.8.8");
    assert_eq!(update(&sandbox, &json!({ "allowInternetAccess": true })).code, 204);
    sandbox.reaches("8.8.8.8");
}

#[test]
fn snake_case_means_the_same() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "deny_out": ["0.0.0.0/0"], "allow_out": ["8.8.8.8"] }));
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("1.1.1.1");
    let network = &sandbox.status()["network"];
    assert_eq!(*network, json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
}

#[test]
fn a_body_may_come_in_chunks() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({}));
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunks = "a\r\n{\"denyOut\"\r\nd\r\n:[\"8.8.8.8/32\r\n3\r\n\"]}\r\n0\r\n\r\n";
    let request = format!("{head}{chunks}");
    let answer = sandbox.stage.agent().exchange(request.as_bytes()).or_fail("asking");
    assert_eq!(answer.code, 204, "{}", answer.body);
    sandbox.is_refused("8.8.8.8");
}

#[test]
fn sandboxes_are_listed_shown_and_deleted() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["8.8.8.8"] }));
    let listed = |sandbox: &Guest| {
        let all = sandbox.stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
        let all = all.as_array().cloned().or_fail("a list");
        all.iter().any(|it| it["sandboxID"] == json!(sandbox.id))
    };
    assert!(listed(&sandbox));
    let shown = sandbox.status();
    assert_eq!(shown["sandboxID"], json!(sandbox.id));
    assert_eq!(shown["interface"], json!(sandbox.interface));
    assert_eq!(shown["addresses"], json!(sandbox.addresses()));
    assert_eq!(shown["status"], "enforcing");
    let deleted = sandbox.stage.request("DELETE", &own_path(&sandbox), &Value::Null);
    assert_eq!((deleted.code, deleted.body.as_str()), (204, ""));
    assert!(!listed(&sandbox));
}

#[test]
fn what_is_unknown_is_not_found() {
    let stage = STAGE.stage();
    for (method, path) in [
        ("GET", "/agent/v1/sandboxes/nosuch"),
        ("DELETE", "/agent/v1/sandboxes/nosuch"),
        ("PUT", "/sandboxes/nosuch/network"),
        ("GET", "/agent/v1/sandboxes/NO%2Fsuch"),
        ("GET", "/nowhere"),
    ] {
        let body = if method == "PUT" { json!({}) } else { Value::Null };
        let answer = stage.request(method, path, &body);
        assert_eq!((answer.code, &answer.json()["code"]), (404, &json!(404)), "{method} {path}");
        assert!(answer.json()["message"].is_string(), "{}", answer.body);
    }
    let wrong = json!({ "denyOut": ["nonsense/"] });
    let answer = stage.request("PUT", "/sandboxes/nosuch/network", &wrong);
    assert_eq!(answer.code, 400, "what is sent is checked first: {}", answer.body);
    assert_eq!(stage.request("POST", "/health", &json!({})).code, 405);
}

#[test]
fn the_path_and_the_body_must_name_the_same_sandbox() {
    let sandbox = STAGE.sandbox();
    let mut spec = sandbox.spec(&json!({}));
    spec["sandboxID"] = json!("somebodyelse");
    let answer = sandbox.stage.request("PUT", &own_path(&sandbox), &spec);
    assert_eq!(answer.code, 400);
    assert!(answer.body.contains("somebodyelse"), "{}", answer.body);
}

#[test]
fn an_interface_that_is_not_there_is_refused() {
    let sandbox = STAGE.sandbox();
    let mut spec = sandbox.spec(&json!({}));
    spec["interface"] = json!("nosuch0");
    let answer = sandbox.stage.request("PUT", &own_path(&sandbox), &spec);
    assert_eq!(answer.code, 400, "{}", answer.body);
    assert!(answer.body.contains("interface") && answer.body.contains("nosuch0"));
}

#[test]
fn two_sandboxes_cannot_share_an_interface() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["8.8.8.8"] }));
    let mut spec = sandbox.spec(&json!({}));
    spec["sandboxID"] = json!("intruder");
    let answer = sandbox.stage.request("PUT", "/agent/v1/sandboxes/intruder", &spec);
    assert_eq!(answer.code, 400, "{}", answer.body);
    assert!(answer.body.contains(&sandbox.interface), "{}", answer.body);
    sandbox.is_refused("8.8.8.8");
}

#[test]
fn secrets_are_not_shown() {
    let sandbox = STAGE.sandbox();
    let proxy = json!({ "address": "203.0.113.5:1080", "username": "u", "password": "hush-hush" });
    sandbox.network(json!({ "egressProxy": proxy }));
    let status = sandbox.status();
    assert_eq!(status["network"]["egressProxy"]["username"], "u");
    let list = sandbox.stage.request("GET", "/agent/v1/sandboxes", &Value::Null);
    let shown = format!("{status}{}{}", list.body, sandbox.stage.agent().log());
    assert!(!shown.contains("hush-hush"));
}

/// What is for the egress proxy and asks for no name, or for a tunnel that is not there, is refused;
/// the rest goes past it.
#[test]
fn address_rules_hold_beside_names_and_tunnels() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["example.com", "1.1.1.1"] }));
    assert_eq!(sandbox.tcp("8.8.8.9", server::HTTPS), Seen::Refused);
    assert_eq!(sandbox.tcp("8.8.8.9", server::ECHO), Seen::Refused);
    assert_eq!(sandbox.tcp("1.1.1.1", server::HTTPS), Seen::Answered);
    assert_eq!(sandbox.udp("8.8.8.8", server::DNS), Seen::Answered, "the default DNS server");
    sandbox.network(json!({ "egressProxy": { "address": "203.0.113.10:1080" } }));
    assert_eq!(sandbox.tcp("8.8.8.9", server::ECHO), Seen::Refused);
    assert_eq!(sandbox.udp("8.8.8.9", server::ECHO), Seen::Answered, "only TCP is tunnelled");
}

#[test]
fn explain_answers_over_http() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["8.8.8.8"] }));
    let ask = |question: &Value| sandbox.stage.request("POST", "/agent/v1/explain", question);
    let live = ask(&json!({ "sandboxID": sandbox.id, "destination": "8.8.8.8" })).json();
    let spec = sandbox.spec(&json!({ "network": { "denyOut": ["8.8.8.8"] } }));
    let offline = ask(&json!({ "spec": spec, "destination": "8.8.8.8" })).json();
    assert_eq!((&live["allowed"], &live["line"]), (&json!(false), &json!(8)));
    assert_eq!(live, offline);
    assert_eq!(ask(&json!({ "sandboxID": "nosuch", "destination": "8.8.8.8" })).code, 404);
    assert_eq!(ask(&json!({ "sandboxID": sandbox.id, "destination": "*.example" })).code, 400);
}

#[test]
fn metrics_are_there_for_prometheus() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.is_refused("8.8.8.8");
    let metrics = sandbox.stage.request("GET", "/metrics", &Value::Null);
    assert_eq!(metrics.code, 200);
    let line = format!(
        "policy_packets_total{{sandbox=\"{}\",verdict=\"denied\",reason=\"deny_out\"}} 3",
        sandbox.id
    );
    assert!(metrics.body.contains(&line), "{line} is not in\n{}", metrics.body);
    for name in ["policy_bytes_total", "policy_events_lost_total", "policy_apply_seconds_bucket"] {
        assert!(metrics.body.contains(name), "{name} is not in\n{}", metrics.body);
    }
}
