//! `network.rules`: they are validated, kept, shown and replaced, and values of headers stay hidden.

use std::{fs, path::Path};

use policy_testbed::testbed::{OrFail as _, SharedTestbed, TestSandbox, Testbed};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("[rules]\nmax_domains = 2\n");

/// A value that nothing but the state and E2B's answer may hold.
const VALUE: &str = "hush-hush-4711";

fn rules() -> Value {
    json!({
        "api.example.com": [{ "transform": { "headers": {
            "Authorization": "Bearer ${e2b.secrets.example}", "X-Literal": VALUE,
        } } }],
        "*.example.net": [{}],
    })
}

fn network() -> Value {
    json!({ "allowOut": ["api.example.com"], "denyOut": ["0.0.0.0/0"], "rules": rules() })
}

/// `network` in E2B's answer.
fn echoed_network(sandbox: &TestSandbox) -> Value {
    let path = format!("/sandboxes/{}", sandbox.id);
    let answer = sandbox.testbed.request("GET", &path, &Value::Null);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["network"].clone()
}

fn update(sandbox: &TestSandbox, network: &Value) {
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let answer = sandbox.testbed.request("PUT", &path, network);
    assert_eq!(answer.status, 204, "{}", answer.body);
}

/// The files below a directory that hold a text.
fn files_with(directory: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).or_fail("listing files").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if fs::read(&path)
            .is_ok_and(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
        {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found
}

#[test]
fn rules_are_echoed_replaced_and_cleared() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(network());
    assert_eq!(echoed_network(&sandbox)["rules"], rules());
    let other = json!({ "*.example.com": [{ "transform": { "headers": { "X-Other": "1" } } }] });
    update(&sandbox, &json!({ "rules": other }));
    assert_eq!(echoed_network(&sandbox), json!({ "rules": other }));
    update(&sandbox, &json!({ "allowOut": ["8.8.8.8"] }));
    assert_eq!(echoed_network(&sandbox), json!({ "allowOut": ["8.8.8.8"] }));
}

#[test]
fn values_are_shown_to_nobody_but_the_e2b_client() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(network());
    let id = sandbox.id.as_str();
    let stage = &sandbox.testbed;
    let shown = sandbox.status();
    let headers = &shown["network"]["rules"]["api.example.com"][0]["transform"]["headers"];
    assert_eq!(headers, &json!({ "Authorization": null, "X-Literal": null }));
    let spec = sandbox.sandbox_spec(&json!({ "network": network() })).to_string();
    for arguments in [
        &["get", id][..],
        &["get", id, "-o", "json"],
        &["get", "-o", "json"],
        &["explain", id, "https://api.example.com"],
        &["explain", id, "https://api.example.com", "-o", "json"],
        &["denials", id],
        &["flows", id],
        &["suggest", id],
        &["events", "--all", "--last", "100", "-o", "json"],
    ] {
        let ran = stage.cli(arguments);
        assert!(
            !ran.stdout.contains(VALUE) && !ran.stderr.contains(VALUE),
            "{arguments:?}: {ran:?}"
        );
    }
    for arguments in [&["check", "-f", "-"][..], &["check", "-f", "-", "-o", "json"]] {
        let ran = stage.cli_with_stdin(arguments, &spec);
        assert_eq!(ran.exit_code, 0, "{ran:?}");
        assert!(
            !ran.stdout.contains(VALUE) && !ran.stderr.contains(VALUE),
            "{arguments:?}: {ran:?}"
        );
    }
    for path in ["/metrics", "/agent/v1/sandboxes", "/agent/v1/events?follow=false&all=true"] {
        let answer = stage.request("GET", path, &Value::Null);
        assert!(answer.status == 200 && !answer.body.contains(VALUE), "{path}: {}", answer.body);
    }
    let log = fs::read_to_string(stage.agent().log_path()).or_fail("reading the log");
    assert!(!log.contains(VALUE), "{log}");
}

#[test]
fn explain_names_the_rule_and_says_that_it_grants_nothing() {
    let sandbox = TESTBED.add_sandbox();
    let wildcard = json!([{ "transform": { "headers": { "X-Team": VALUE } } }]);
    let rules = json!({ "*.example.com": wildcard });
    sandbox.apply_network(
        json!({ "allowOut": ["api.example.com"], "denyOut": ["0.0.0.0/0"], "rules": rules }),
    );
    let question = json!({ "sandboxID": sandbox.id, "destination": "https://b.example.com" });
    let denied = sandbox.testbed.request("POST", "/agent/v1/explain", &question).json();
    assert_eq!(
        (&denied["allowed"], &denied["reason"]),
        (&json!(false), &json!("name_not_allowed"))
    );
    let rule = &denied["headerRule"];
    assert_eq!((&rule["key"], &rule["headers"]), (&json!("*.example.com"), &json!(["x-team"])));
    assert_eq!(rule["applied"], false);
    let table = sandbox.testbed.cli(&["explain", &sandbox.id, "https://b.example.com"]);
    assert!(table.stdout.contains("headers *.example.com: x-team (a rule grants"), "{table:?}");
    let plain = json!({ "sandboxID": sandbox.id, "destination": "https://example.com" });
    let none = sandbox.testbed.request("POST", "/agent/v1/explain", &plain).json();
    assert_eq!(none.get("headerRule"), None, "{none}");
}

#[test]
fn apply_says_what_changes_and_warns_about_rules_without_effect() {
    let sandbox = TESTBED.add_sandbox();
    let spec = |value: &str, key: &str| {
        let rules = json!({ key: [{ "transform": { "headers": { "X-Key": value } } }] });
        let network =
            json!({ "allowOut": ["a.example.com"], "denyOut": ["0.0.0.0/0"], "rules": rules });
        sandbox.sandbox_spec(&json!({ "network": network })).to_string()
    };
    let apply = |text: &str, arguments: &[&str]| {
        sandbox.testbed.cli_with_stdin(&[&["apply", "-f", "-"], arguments].concat(), text)
    };
    let made = apply(&spec(VALUE, "a.example.com"), &[]);
    assert_eq!((made.exit_code, made.stderr.as_str()), (0, ""), "{made:?}");
    let same = apply(&spec(VALUE, "a.example.com"), &["--diff"]);
    assert!(same.stdout.contains("unchanged"), "{same:?}");
    let value = apply(&spec("another", "a.example.com"), &["--diff", "--dry-run"]);
    assert!(value.stdout.contains("~ network.rules: values of headers"), "{value:?}");
    assert!(!value.stdout.contains(VALUE) && !value.stdout.contains("another"), "{value:?}");
    let idle = apply(&spec(VALUE, "b.example.com"), &["--strict"]);
    assert_eq!(idle.exit_code, 2, "{idle:?}");
    assert!(
        idle.stderr.contains("a rule grants nothing") && !idle.stderr.contains(VALUE),
        "{idle:?}"
    );
    let limit = json!({ "rules": { "a.b": [], "c.d": [], "e.f": [] } });
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let refused = sandbox.testbed.request("PUT", &path, &limit);
    assert_eq!(
        refused.json()["message"],
        "network.rules: Network rules can have at most 2 domains.",
        "{}",
        refused.body
    );
}

#[test]
fn what_get_prints_cannot_be_applied_by_mistake() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(network());
    let network = sandbox.status()["network"].clone();
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let refused = sandbox.testbed.request("PUT", &path, &network);
    assert_eq!(refused.status, 400, "{}", refused.body);
    assert!(refused.body.contains("headers.Authorization: must be a string"), "{}", refused.body);
    assert_eq!(echoed_network(&sandbox)["rules"], rules());
}

#[test]
fn rules_outlive_the_agent_and_lower_limits() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.apply_network(network());
    stage.stop_agent();
    let path = stage.agent().config_path();
    let config = fs::read_to_string(&path).or_fail("reading the configuration");
    fs::write(&path, format!("{config}\n[rules]\nmax_domains = 1\n")).or_fail("writing it");
    stage.restart_agent();
    assert_eq!(echoed_network(&sandbox)["rules"], rules());
    assert_eq!(sandbox.status()["status"], "enforcing");
    let state = stage.agent().state_dir();
    for file in files_with(&state, VALUE) {
        assert!(file.ends_with(".json") || file.contains("journal"), "{file}");
    }
    sandbox.delete();
    let files = files_with(&state.join("sandboxes"), VALUE);
    assert!(files.iter().all(|file| file.contains("journal")), "{files:?}");
}
