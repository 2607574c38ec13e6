//! `allow` and `deny` change one list of the policy in force, also for a limited time; `apply` says
//! what it changes.

use policy_testbed::{
    agent::CliOutput,
    testbed::{OrFail as _, SharedTestbed, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

/// Runs `policy-agent` with the words of a line, in which `ID` stands for the sandbox.
fn run(sandbox: &TestSandbox, line: &str) -> CliOutput {
    let words: Vec<&str> =
        line.split(' ').map(|word| if word == "ID" { &*sandbox.id } else { word }).collect();
    sandbox.testbed.cli(&words)
}

#[track_caller]
fn run_well(sandbox: &TestSandbox, line: &str) -> String {
    let output = run(sandbox, line);
    assert_eq!(output.exit_code, 0, "{line}: {output:?}");
    output.stdout
}

fn closed_sandbox() -> TestSandbox {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["8.8.8.8"], "denyOut": ["0.0.0.0/0"] }));
    sandbox
}

#[test]
fn what_is_allowed_works_at_once_and_what_is_removed_is_refused_again() {
    let sandbox = closed_sandbox();
    sandbox.assert_refused("8.8.8.9");
    assert_eq!(run_well(&sandbox, "allow ID 8.8.8.9"), "+ allowOut 8.8.8.9\n");
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_reaches("8.8.8.8");
    assert_eq!(run_well(&sandbox, "allow ID 8.8.8.9/32"), "= allowOut 8.8.8.9\n");
    assert_eq!(run_well(&sandbox, "allow ID 8.8.8.9 --remove"), "- allowOut 8.8.8.9\n");
    sandbox.assert_refused("8.8.8.9");
    sandbox.apply_network(json!({}));
    sandbox.assert_reaches("8.8.8.9");
    run_well(&sandbox, "deny ID 8.8.8.9");
    sandbox.assert_refused("8.8.8.9");
    run_well(&sandbox, "deny ID 8.8.8.9 --remove");
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn a_hint_of_the_record_is_a_command_that_works() {
    let sandbox = closed_sandbox();
    sandbox.assert_refused("8.8.8.9");
    let hint = eventually("the hint", || {
        let denials = run(&sandbox, "denials ID -o json").json();
        let denied = denials.as_array()?.iter().find(|entry| entry["address"] == "8.8.8.9");
        denied?["allowWith"].as_str().map(str::to_owned)
    });
    let hint = hint.or_fail("looking in the record");
    run_well(&sandbox, hint.strip_prefix("policy-agent ").or_fail(&hint));
    sandbox.assert_reaches("8.8.8.9");
}

#[test]
fn a_dry_run_changes_nothing() {
    let sandbox = closed_sandbox();
    let before = sandbox.status()["network"].clone();
    assert_eq!(run_well(&sandbox, "allow ID 8.8.8.9 --dry-run"), "+ allowOut 8.8.8.9\n");
    assert_eq!(sandbox.status()["network"], before);
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn what_has_no_effect_or_is_invalid_is_refused_and_changes_nothing() {
    let sandbox = closed_sandbox();
    let before = sandbox.status()["network"].clone();
    for (line, exit_code, problem) in [
        ("allow ID 169.254.169.254", 2, "inside the operator's platform_deny (169.254.0.0/16)"),
        ("allow ID https://a.example/x", 2, "write a.example alone"),
        ("allow ID 8.8.4.4 --remove", 2, "is not in allowOut"),
        ("deny ID 8.8.8.8", 2, "allowOut[0] (8.8.8.8/32) allows it"),
        ("deny ID a.example", 2, "a domain cannot be denied"),
        ("allow ID 8.8.8.9 --for tomorrow", 2, "write a duration"),
        ("allow ID 8.8.8.9 a..b", 2, "entries[1]: \"a..b\""),
        ("allow nosuch 8.8.8.9", 1, "there is no sandbox \"nosuch\""),
        ("deny ID 0.0.0.0/0 --remove --for 1h", 2, "cannot be used with"),
    ] {
        let output = run(&sandbox, line);
        assert_eq!(output.exit_code, exit_code, "{line}: {output:?}");
        assert!(output.stderr.contains(problem), "{line}: {output:?}");
    }
    run_well(&sandbox, "allow ID a.example");
    let output = run(&sandbox, "deny ID 0.0.0.0/0 --remove");
    assert_eq!(output.exit_code, 2, "{output:?}");
    assert!(output.stderr.contains("a domain can be allowed only when"), "{output:?}");
    run_well(&sandbox, "allow ID a.example --remove");
    assert_eq!(sandbox.status()["network"], before);
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn what_is_allowed_for_a_time_ends_also_if_the_agent_was_away() {
    let (stage, sandbox) = Testbed::with_sandbox();
    sandbox.allow_only(&["8.8.8.8"]);
    run_well(&sandbox, "allow ID 8.8.8.9 --for 1h");
    assert_eq!(sandbox.status()["temporary"][0]["entry"], "8.8.8.9");
    stage.stop_agent();
    stage.restart_agent();
    sandbox.assert_reaches("8.8.8.9");
    assert_eq!(sandbox.status()["temporary"][0]["list"], "allowOut");
    let mut spec = sandbox.status();
    let end = "2026-01-01T00:00:00Z";
    run_well(&sandbox, "allow ID 8.8.8.9 --for 1s");
    let ended = || (sandbox.status()["network"]["allowOut"] == json!(["8.8.8.8"])).then_some(());
    eventually("the entry has ended", ended).or_fail("waiting");
    sandbox.assert_refused("8.8.8.9");
    assert_eq!(sandbox.status().get("temporary"), None);
    // An entry whose time is over when it is applied ends at once.
    spec["temporary"][0]["until"] = json!(end);
    sandbox.apply_config(&json!({ "network": spec["network"], "temporary": spec["temporary"] }));
    eventually("the entry has ended", ended).or_fail("waiting");
    sandbox.assert_refused("8.8.8.9");
}

#[test]
fn what_was_seen_becomes_a_policy() {
    let sandbox = closed_sandbox();
    sandbox.assert_refused("8.8.8.9");
    sandbox.probe_tcp("169.254.169.254", 80);
    let suggested = eventually("a suggestion", || {
        let output = run(&sandbox, "suggest ID");
        let is_complete = output.stderr.contains("169.254.169.254 is left out")
            && output.stdout.contains("8.8.8.9");
        is_complete.then_some(output)
    });
    let suggested = suggested.or_fail("asking for a suggestion");
    assert_eq!(suggested.json()["network"]["denyOut"], json!(["0.0.0.0/0"]));
    assert_eq!(suggested.json()["network"]["allowOut"], json!(["8.8.8.9"]));
    assert!(suggested.stderr.contains("8.8.8.9 was denied so far: deny_out"), "{suggested:?}");
    let applied = sandbox.testbed.cli_with_stdin(&["apply", "-f", "-"], &suggested.stdout);
    assert_eq!(applied.exit_code, 0, "{applied:?}");
    sandbox.assert_reaches("8.8.8.9");
    let unknown = run(&sandbox, "suggest nosuch");
    assert_eq!(unknown.exit_code, 1, "{unknown:?}");
}

#[test]
fn an_apply_says_what_it_changes() {
    let sandbox = TESTBED.add_sandbox();
    let text = |network: Value| sandbox.sandbox_spec(&json!({ "network": network })).to_string();
    let apply = |network: Value, flags: &[&str]| {
        let arguments = [&["apply", "-f", "-"], flags].concat();
        let output = sandbox.testbed.cli_with_stdin(&arguments, &text(network));
        assert_eq!(output.exit_code, 0, "{output:?}");
        output.stdout
    };
    let id = &sandbox.id;
    let (old, new) =
        (json!({ "denyOut": ["8.8.8.8"] }), json!({ "denyOut": ["8.8.8.9", "8.8.4.4"] }));
    assert_eq!(apply(old.clone(), &["--dry-run"]), format!("{id} created\n"));
    assert_eq!(sandbox.testbed.cli(&["get", id]).exit_code, 1, "a dry run creates nothing");
    assert_eq!(apply(old.clone(), &[]), format!("{id} created\n"));
    assert_eq!(apply(old, &[]), format!("{id} unchanged\n"));
    let diff = format!(
        "{id} changed (+2 −1)\n  + denyOut 8.8.8.9\n  + denyOut 8.8.4.4\n  - denyOut 8.8.8.8\n"
    );
    assert_eq!(apply(new.clone(), &["--dry-run", "--diff"]), diff);
    sandbox.assert_reaches("8.8.8.9");
    assert_eq!(apply(new, &["--diff"]), diff);
    sandbox.assert_refused("8.8.8.9");
}
