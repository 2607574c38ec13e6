//! The record of flows and denials: what `denials` and `flows` show, with what would allow it.

use policy_testbed::{
    agent::CliOutput,
    named_internet::client_hello,
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{DomainScenario, OrFail as _, RESOLVER_CONFIG, SharedTestbed, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);
static ADDRESS_TESTBED: SharedTestbed = SharedTestbed::with_config("");

/// The entries that `denials` or `flows` print for a sandbox.
fn entries(stage: &Testbed, arguments: &[&str]) -> Vec<Value> {
    let printed = stage.cli(&[arguments, &["-o", "json"]].concat());
    assert_eq!(printed.exit_code, 0, "{printed:?}");
    printed.json().as_array().cloned().unwrap_or_default()
}

/// Waits for an entry that satisfies `wanted`.
#[track_caller]
fn wait_for_entry(
    sandbox: &TestSandbox,
    command: &str,
    what: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let found = eventually(what, || {
        entries(&sandbox.testbed, &[command, &sandbox.id]).into_iter().find(&wanted)
    });
    found.or_fail("looking in the record")
}

fn assert_refused_as(output: &CliOutput, exit_code: i32, problem: &str) {
    assert_eq!(output.exit_code, exit_code, "{output:?}");
    assert!(output.stderr.contains(problem), "{problem} is not in {output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn denials_are_counted_by_destination_with_what_would_allow_them() {
    let scene = DomainScenario::new(&TESTBED, "recorded");
    let sandbox = &scene.sandbox;
    let hello = client_hello::hello_records(&scene.denied_site.name);
    for _ in 0..3 {
        let _ = sandbox.close_after(scene.denied_site.v4, HTTPS_PORT, &hello);
    }
    sandbox.probe_udp("8.8.8.9", 4711);
    sandbox.probe_tcp("169.254.169.254", 4711);
    let named = wait_for_entry(sandbox, "denials", "three denials of the name", |entry| {
        entry["name"] == scene.denied_site.name.as_str() && entry["connections"] == 3
    });
    assert_eq!((&named["reason"], &named["port"]), (&json!("name_not_allowed"), &json!(443)));
    assert_eq!(named["allowEntry"], scene.denied_site.name.as_str());
    let packet = wait_for_entry(sandbox, "denials", "the denied packet", |entry| {
        entry["address"] == "8.8.8.9"
    });
    assert_eq!((&packet["reason"], &packet["protocol"]), (&json!("deny_out"), &json!("udp")));
    assert_eq!(packet["rule"]["list"], "network.denyOut");
    assert!(packet["bytes"].as_u64() > Some(0), "{packet}");
    wait_for_entry(sandbox, "denials", "the floor's denial", |entry| {
        entry["allowWith"] == "the operator's platform_allow only"
    });
    let table = sandbox.testbed.cli(&["denials", &sandbox.id]).stdout;
    let command = format!("policy-agent allow {} {}", sandbox.id, scene.denied_site.name);
    assert!(table.lines().any(|row| row.ends_with(&command)), "{table}");
}

#[test]
fn what_passes_by_name_is_recorded_with_its_name() {
    let scene = DomainScenario::new(&TESTBED, "passed");
    let mut talk = scene.connect_to_denied_site(HTTP_PORT);
    for name in [&scene.allowed_site.name, &scene.allowed_subdomain.name] {
        assert_eq!(talk.send_get(name).read_response().status, 200);
    }
    for name in [&scene.allowed_site.name, &scene.allowed_subdomain.name] {
        let flow = wait_for_entry(&scene.sandbox, "flows", "the flow", |entry| {
            entry["name"] == name.as_str()
        });
        assert_eq!((&flow["decision"], &flow["reason"]), (&json!("allowed"), &json!("allow_name")));
        assert!(flow.get("allowWith").is_none(), "{flow}");
    }
    let none = entries(&scene.sandbox.testbed, &["denials", &scene.sandbox.id]);
    assert!(none.iter().all(|entry| entry["decision"] == "denied"), "{none:?}");
}

#[test]
fn the_record_is_filtered_and_a_wrong_filter_is_refused() {
    let sandbox = ADDRESS_TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.probe_tcp("8.8.8.8", 4711);
    sandbox.probe_tcp("169.254.169.254", 4711);
    for reason in ["deny_out", "platform_deny"] {
        wait_for_entry(&sandbox, "denials", reason, |entry| entry["reason"] == reason);
    }
    let (stage, id) = (&sandbox.testbed, sandbox.id.as_str());
    let count = |filter: &[&str]| entries(stage, &[&["denials", id], filter].concat()).len();
    assert_eq!(count(&["--reason", "deny_out"]), 1);
    assert_eq!(count(&["--last", "1"]), 1);
    assert!(count(&["--since", "1h"]) >= 2);
    assert_eq!(count(&["--since", "2100-01-01T00:00:00Z"]), 0);
    assert_eq!(count(&["--name", "*.example.com"]), 0);
    for (filter, problem) in [
        (["--reason", "denyout"], "did you mean deny_out?"),
        (["--since", "monday"], "write a duration, like 30m"),
        (["--name", "a..b"], "name: \"a..b\""),
    ] {
        assert_refused_as(&stage.cli(&[&["denials", id], &filter[..]].concat()), 2, problem);
    }
    assert_refused_as(&stage.cli(&["denials", "nosuch"]), 1, "there is no sandbox \"nosuch\"");
    assert_refused_as(&stage.cli(&["flows", "nosuch"]), 1, "there is no sandbox \"nosuch\"");
    let of_all = entries(stage, &["denials"]);
    assert!(of_all.iter().any(|entry| entry["sandboxID"] == json!(id)), "{of_all:?}");
}

#[test]
fn events_are_selected_by_reason_time_and_number() {
    let sandbox = ADDRESS_TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    for port in [4721, 4722] {
        sandbox.probe_tcp("8.8.8.8", port);
        sandbox.wait_for_event("the denial", |event| event["destinationPort"] == port);
    }
    sandbox.probe_tcp("169.254.169.254", 4723);
    sandbox.wait_for_event("the floor's denial", |event| event["destinationPort"] == 4723);
    let ports = |filter: &[&str]| -> Vec<Value> {
        let command = [&["events", "--sandbox", &sandbox.id, "-o", "json"], filter].concat();
        let events = sandbox.testbed.cli(&command).json_lines();
        let mut ports: Vec<_> =
            events.iter().map(|event| event["destinationPort"].clone()).collect();
        ports.dedup(); // a program may try again
        ports
    };
    assert_eq!(ports(&["--reason", "deny_out"]), [4721, 4722]);
    assert_eq!(ports(&["--reason", "platform_deny"]), [4723]);
    assert_eq!(ports(&["--reason", "deny_out", "--last", "1"]), [4722]);
    assert!(ports(&["--since", "1h"]).contains(&json!(4721)));
    assert!(ports(&["--since", "2100-01-01T00:00:00Z"]).is_empty());
    let wrong = sandbox.testbed.cli(&["events", "--reason", "nothing_known"]);
    assert_refused_as(&wrong, 2, "no such reason");
}
