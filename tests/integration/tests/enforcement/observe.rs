//! Observed sandboxes: what the policy denies passes and is recorded, and the floor is enforced.

use std::io;

use policy_testbed::{
    probe::{self, ProbeKind, ProbeResult},
    test_servers::{ECHO_PORT, TestServers},
    testbed::{OrFail as _, SharedTestbed, TestSandbox, Testbed, parse_ip},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[track_caller]
fn run_well(sandbox: &TestSandbox, words: &[&str]) -> String {
    let output = sandbox.testbed.cli(words);
    assert_eq!(output.exit_code, 0, "{words:?}: {output:?}");
    output.stdout
}

/// An observed sandbox whose policy allows one address.
fn observed_sandbox() -> TestSandbox {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    run_well(&sandbox, &["observe", &sandbox.id]);
    sandbox
}

/// The entry of the record about an address and a port.
#[track_caller]
fn recorded(sandbox: &TestSandbox, address: &str, port: u16) -> Value {
    let entry = eventually("an entry of the record", || {
        let list = sandbox.testbed.cli(&["flows", &sandbox.id, "-o", "json"]).json();
        let is_wanted = |entry: &&Value| entry["address"] == address && entry["port"] == port;
        list.as_array()?.iter().find(is_wanted).cloned()
    });
    entry.or_fail("looking in the record")
}

#[test]
fn what_the_policy_denies_passes_and_is_recorded_with_its_rule() {
    let sandbox = observed_sandbox();
    for address in ["8.8.8.8", "8.8.8.9", "2001:db8:1::1"] {
        sandbox.assert_reaches(address);
    }
    let seen = recorded(&sandbox, "8.8.8.9", ECHO_PORT);
    assert_eq!((&seen["decision"], &seen["reason"]), (&json!("would_deny"), &json!("deny_out")));
    assert_eq!(
        seen["rule"],
        json!({ "list": "network.denyOut", "index": 0, "entry": "0.0.0.0/0" })
    );
    assert_eq!(recorded(&sandbox, "8.8.8.8", ECHO_PORT)["decision"], "allowed");
    let denials = run_well(&sandbox, &["denials", &sandbox.id]);
    assert!(denials.contains("deny_out (would deny)"), "{denials}");
    assert!(denials.contains(&format!("policy-agent allow {} 8.8.8.9", sandbox.id)), "{denials}");
    let suggested = run_well(&sandbox, &["suggest", &sandbox.id]);
    assert!(suggested.contains("8.8.8.9") && !suggested.contains("observe"), "{suggested}");
}

#[test]
fn the_floor_and_the_source_are_enforced() {
    let sandbox = observed_sandbox();
    assert_eq!(sandbox.probe_tcp("169.254.169.254", 80), ProbeResult::Refused);
    let mut spoofed = sandbox.frame_builder();
    spoofed.v4 = [10, 11, 200, 200].into();
    let frame = spoofed.udp(parse_ip("8.8.8.9"), 9, &sandbox.frame_token());
    assert!(sandbox.frames_crossing(&[frame]).is_empty());
}

#[test]
fn nobody_forgets_that_a_sandbox_is_observed() {
    let sandbox = observed_sandbox();
    sandbox.assert_reaches("8.8.8.9");
    let status = sandbox.status();
    assert_eq!(status["mode"], "observe");
    assert!(status["wouldDeny"]["packets"].as_u64() > Some(0), "{status}");
    assert_eq!(status["denied"]["packets"], 0, "{status}");
    assert!(run_well(&sandbox, &["get", &sandbox.id]).contains("OBSERVED"));
    let metrics = sandbox.testbed.request("GET", "/metrics", &Value::Null).body;
    let id = &sandbox.id;
    for metric in [
        format!("policy_sandbox_observed{{sandbox=\"{id}\"}} 1"),
        format!("policy_would_deny_total{{sandbox=\"{id}\",reason=\"deny_out\"}}"),
    ] {
        assert!(metrics.contains(&metric), "{metric}: {metrics}");
    }
    let event = sandbox.wait_for_event("what passed", |event| event["verdict"] == "would_deny");
    assert_eq!((&event["reason"], &event["line"]), (&json!("deny_out"), &json!(8)));
    let explained = run_well(&sandbox, &["explain", id, "8.8.8.9"]);
    assert!(explained.starts_with("allowed, because it is observed"), "{explained}");
}

#[test]
fn enforcing_again_bites_on_the_next_packet() {
    let sandbox = observed_sandbox();
    let mut stream = sandbox.connect_echo("8.8.8.9");
    probe::echo(&mut stream, b"before").or_fail("while it is observed");
    run_well(&sandbox, &["observe", &sandbox.id, "--end"]);
    let after = probe::echo(&mut stream, b"after").expect_err("enforced");
    assert_eq!(after.kind(), io::ErrorKind::ConnectionReset, "{after}");
    sandbox.assert_refused("8.8.8.9");
    assert_eq!(sandbox.status().get("mode"), None);
}

#[test]
fn replies_to_inbound_connections_are_not_taken_for_denials() {
    let sandbox = observed_sandbox();
    let servers = TestServers::start(&sandbox.namespace, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    for address in sandbox.addresses() {
        for how in [ProbeKind::Tcp(ECHO_PORT), ProbeKind::Udp(ECHO_PORT), ProbeKind::Ping] {
            let seen = probe::probe(&sandbox.testbed.network.host, how, address);
            assert_eq!(seen, ProbeResult::Answered, "{how} to {address}");
        }
    }
    let status = sandbox.status();
    assert!(status["counters"]["reply"]["packets"].as_u64() > Some(0), "{status}");
    assert_eq!(status.get("wouldDeny"), None, "{status}");
}

#[test]
fn the_sdk_can_neither_observe_nor_end_it() {
    let sandbox = observed_sandbox();
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let deny_all = json!({ "denyOut": ["0.0.0.0/0"] });
    let updated = sandbox.testbed.request("PUT", &path, &deny_all);
    assert_eq!(updated.status, 204, "{}", updated.body);
    sandbox.assert_reaches("8.8.8.9");
    for mode in ["observe", "enforce"] {
        let update = json!({ "denyOut": ["0.0.0.0/0"], "mode": mode });
        let refused = sandbox.testbed.request("PUT", &path, &update);
        assert_eq!(refused.status, 400, "{}", refused.body);
    }
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn a_file_observes_and_the_next_one_enforces() {
    let sandbox = TESTBED.add_sandbox();
    let network = json!({ "denyOut": ["0.0.0.0/0"] });
    sandbox.apply_config(&json!({ "mode": "observe", "network": network }));
    sandbox.assert_reaches("8.8.8.9");
    sandbox.apply_config(&json!({ "network": network }));
    sandbox.assert_refused("8.8.8.9");
    let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
    let words = ["apply", "-f", "-", "--observe", "--for", "1h"];
    let applied = sandbox.testbed.cli_with_stdin(&words, &spec);
    assert!(applied.stderr.contains("is observed, not enforced"), "{applied:?}");
    assert!(sandbox.status()["observeUntil"].is_string());
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn an_observation_ends_by_itself_also_after_a_restart() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    run_well(&sandbox, &["observe", &sandbox.id, "--for", "1h"]);
    stage.stop_agent();
    sandbox.assert_reaches("8.8.8.9");
    stage.restart_agent();
    sandbox.assert_reaches("8.8.8.9");
    assert!(sandbox.status()["observeUntil"].is_string());
    run_well(&sandbox, &["observe", &sandbox.id, "--for", "1s"]);
    let is_over = || sandbox.status().get("mode").is_none().then_some(());
    eventually("the observation is over", is_over).or_fail("waiting");
    sandbox.assert_refused("8.8.8.9");
    assert_eq!(sandbox.status().get("observeUntil"), None);
}

#[test]
fn a_mistake_is_refused_with_what_to_write() {
    let sandbox = TESTBED.add_sandbox();
    for (words, exit_code, problem) in [
        (vec!["observe", "nosuch"], 1, "there is no sandbox \"nosuch\""),
        (vec!["observe", &*sandbox.id, "--for", "tomorrow"], 2, "write a duration"),
        (vec!["observe", &*sandbox.id, "--end", "--for", "1h"], 2, "cannot be used with"),
    ] {
        let output = sandbox.testbed.cli(&words);
        assert_eq!(output.exit_code, exit_code, "{words:?}: {output:?}");
        assert!(output.stderr.contains(problem), "{words:?}: {output:?}");
    }
}
