//! The HTTP API: paths, responses, errors.

use policy_testbed::{
    agent::ApiResponse,
    probe::ProbeResult,
    test_servers,
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

fn network_path(sandbox: &TestSandbox) -> String {
    format!("/agent/v1/sandboxes/{}", sandbox.id)
}

/// `PUT /sandboxes/{id}/network`
fn update_network(sandbox: &TestSandbox, network: &Value) -> ApiResponse {
    sandbox.testbed.request("PUT", &format!("/sandboxes/{}/network", sandbox.id), network)
}

#[test]
fn the_health_of_the_agent() {
    let answer = TESTBED.testbed().request("GET", "/health", &Value::Null);
    assert_eq!(answer.status, 200);
}

#[test]
fn an_update_replaces_all_egress_fields() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    let updated = update_network(&sandbox, &json!({ "denyOut": ["8.8.8.8"] }));
    assert_eq!((updated.status, updated.body.as_str()), (204, ""));
    sandbox.assert_refused("8.8.8.8");
    sandbox.assert_reaches("1.1.1.1");
    sandbox.assert_reaches("198.51.100.7");
    assert_eq!(update_network(&sandbox, &json!({})).status, 204);
    sandbox.assert_reaches("8.8.8.8");
}

#[test]
fn an_update_leaves_ingress_fields_alone() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({
        "denyOut": ["8.8.8.8"],
        "allowPublicTraffic": false,
        "maskRequestHost": "localhost:${PORT}",
        "httpsPorts": [8443],
        "allowPublicFrom": ["192.0.2.0/24"],
    }));
    assert_eq!(update_network(&sandbox, &json!({ "denyOut": ["1.1.1.1"] })).status, 204);
    let network = &sandbox.status()["network"];
    assert_eq!(network["denyOut"], json!(["1.1.1.1"]));
    assert_eq!(network["allowPublicTraffic"], false);
    assert_eq!(network["maskRequestHost"], "localhost:${PORT}");
    assert_eq!(network["httpsPorts"], json!([8443]));
    assert_eq!(network["allowPublicFrom"], json!(["192.0.2.0/24"]));
}

#[test]
fn an_update_carries_internet_access_and_omitted_lifts_it() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_config(&json!({ "allowInternetAccess": false }));
    sandbox.assert_refused("8.8.8.8");
    assert_eq!(update_network(&sandbox, &json!({})).status, 204);
    sandbox.assert_reaches("8.8.8.8");
    assert_eq!(update_network(&sandbox, &json!({ "allow_internet_access": false })).status, 204);
    sandbox.assert_refused("8.8.8.8");
    assert_eq!(update_network(&sandbox, &json!({ "allowInternetAccess": true })).status, 204);
    sandbox.assert_reaches("8.8.8.8");
}

#[test]
fn snake_case_means_the_same() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "deny_out": ["0.0.0.0/0"], "allow_out": ["8.8.8.8"] }));
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("1.1.1.1");
    let network = &sandbox.status()["network"];
    assert_eq!(*network, json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
}

#[test]
fn a_body_may_come_in_chunks() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({}));
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\
         Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunks = "a\r\n{\"denyOut\"\r\nd\r\n:[\"8.8.8.8/32\r\n3\r\n\"]}\r\n0\r\n\r\n";
    let request = format!("{head}{chunks}");
    let answer = sandbox.testbed.agent().send_raw(request.as_bytes()).or_fail("asking");
    assert_eq!(answer.status, 204, "{}", answer.body);
    sandbox.assert_refused("8.8.8.8");
}

#[test]
fn sandboxes_are_listed_shown_and_deleted() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    let listed = |sandbox: &TestSandbox| {
        let all = sandbox.testbed.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
        let all = all.as_array().cloned().or_fail("a list");
        all.iter().any(|it| it["sandboxID"] == json!(sandbox.id))
    };
    assert!(listed(&sandbox));
    let shown = sandbox.status();
    assert_eq!(shown["sandboxID"], json!(sandbox.id));
    assert_eq!(shown["interface"], json!(sandbox.interface));
    assert_eq!(shown["addresses"], json!(sandbox.addresses()));
    assert_eq!(shown["status"], "enforcing");
    let deleted = sandbox.testbed.request("DELETE", &network_path(&sandbox), &Value::Null);
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert!(!listed(&sandbox));
}

#[test]
fn what_is_unknown_is_not_found() {
    let stage = TESTBED.testbed();
    for (method, path) in [
        ("GET", "/agent/v1/sandboxes/nosuch"),
        ("DELETE", "/agent/v1/sandboxes/nosuch"),
        ("PUT", "/sandboxes/nosuch/network"),
        ("GET", "/agent/v1/sandboxes/NO%2Fsuch"),
        ("GET", "/nowhere"),
    ] {
        let body = if method == "PUT" { json!({}) } else { Value::Null };
        let answer = stage.request(method, path, &body);
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!(404)), "{method} {path}");
        assert!(answer.json()["message"].is_string(), "{}", answer.body);
    }
    let wrong = json!({ "denyOut": ["nonsense/"] });
    let answer = stage.request("PUT", "/sandboxes/nosuch/network", &wrong);
    assert_eq!(answer.status, 400, "what is sent is checked first: {}", answer.body);
    assert_eq!(stage.request("POST", "/health", &json!({})).status, 405);
}

#[test]
fn the_path_and_the_body_must_name_the_same_sandbox() {
    let sandbox = TESTBED.add_sandbox();
    let mut spec = sandbox.sandbox_spec(&json!({}));
    spec["sandboxID"] = json!("somebodyelse");
    let answer = sandbox.testbed.request("PUT", &network_path(&sandbox), &spec);
    assert_eq!(answer.status, 400);
    assert!(answer.body.contains("somebodyelse"), "{}", answer.body);
}

#[test]
fn an_interface_that_is_not_there_is_refused() {
    let sandbox = TESTBED.add_sandbox();
    let mut spec = sandbox.sandbox_spec(&json!({}));
    spec["interface"] = json!("nosuch0");
    let answer = sandbox.testbed.request("PUT", &network_path(&sandbox), &spec);
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("interface") && answer.body.contains("nosuch0"));
}

#[test]
fn two_sandboxes_cannot_share_an_interface() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    let mut spec = sandbox.sandbox_spec(&json!({}));
    spec["sandboxID"] = json!("intruder");
    let answer = sandbox.testbed.request("PUT", "/agent/v1/sandboxes/intruder", &spec);
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains(&sandbox.interface), "{}", answer.body);
    sandbox.assert_refused("8.8.8.8");
}

#[test]
fn secrets_are_not_shown() {
    let sandbox = TESTBED.add_sandbox();
    let proxy = json!({ "address": "203.0.113.5:1080", "username": "u", "password": "hush-hush" });
    sandbox.apply_network(json!({ "egressProxy": proxy }));
    let status = sandbox.status();
    assert_eq!(status["network"]["egressProxy"]["username"], "u");
    let list = sandbox.testbed.request("GET", "/agent/v1/sandboxes", &Value::Null);
    let shown = format!("{status}{}{}", list.body, sandbox.testbed.agent().log_tail());
    assert!(!shown.contains("hush-hush"));
}

/// Traffic for the egress proxy is denied if it requests no name, or if there is no upstream proxy.
/// Other traffic bypasses the proxy.
#[test]
fn address_rules_hold_beside_domains_and_egress_proxies() {
    let sandbox = TESTBED.add_sandbox();
    sandbox
        .apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["example.com", "1.1.1.1"] }));
    assert_eq!(sandbox.probe_tcp("8.8.8.9", test_servers::HTTPS_PORT), ProbeResult::Refused);
    assert_eq!(sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT), ProbeResult::Refused);
    assert_eq!(sandbox.probe_tcp("1.1.1.1", test_servers::HTTPS_PORT), ProbeResult::Answered);
    assert_eq!(
        sandbox.probe_udp("8.8.8.8", test_servers::DNS_PORT),
        ProbeResult::Answered,
        "the default DNS server"
    );
    sandbox.apply_network(json!({ "egressProxy": { "address": "203.0.113.10:1080" } }));
    assert_eq!(sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT), ProbeResult::Refused);
    assert_eq!(
        sandbox.probe_udp("8.8.8.9", test_servers::ECHO_PORT),
        ProbeResult::Answered,
        "only TCP is tunnelled"
    );
}

#[test]
fn explain_answers_over_http() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    let ask = |question: &Value| sandbox.testbed.request("POST", "/agent/v1/explain", question);
    let live = ask(&json!({ "sandboxID": sandbox.id, "destination": "8.8.8.8" })).json();
    let spec = sandbox.sandbox_spec(&json!({ "network": { "denyOut": ["8.8.8.8"] } }));
    let offline = ask(&json!({ "spec": spec, "destination": "8.8.8.8" })).json();
    assert_eq!((&live["allowed"], &live["line"]), (&json!(false), &json!(8)));
    assert_eq!(live, offline);
    assert_eq!(ask(&json!({ "sandboxID": "nosuch", "destination": "8.8.8.8" })).status, 404);
    assert_eq!(ask(&json!({ "sandboxID": sandbox.id, "destination": "*.example" })).status, 400);
}

#[test]
fn metrics_are_there_for_prometheus() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.assert_refused("8.8.8.8");
    let metrics = sandbox.testbed.request("GET", "/metrics", &Value::Null);
    assert_eq!(metrics.status, 200);
    let line = format!(
        "policy_packets_total{{sandbox=\"{}\",verdict=\"denied\",reason=\"deny_out\"}} 3",
        sandbox.id
    );
    assert!(metrics.body.contains(&line), "{line} is not in\n{}", metrics.body);
    for name in ["policy_bytes_total", "policy_events_lost_total", "policy_apply_seconds_bucket"] {
        assert!(metrics.body.contains(name), "{name} is not in\n{}", metrics.body);
    }
}
