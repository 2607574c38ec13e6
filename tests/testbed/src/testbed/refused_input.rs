//! A sandbox whose policy must stay in force while every interface refuses invalid input.

use serde_json::{Value, json};

use super::{OrFail as _, TestSandbox};

/// Gives a sandbox the policy that must stay in force.
#[track_caller]
pub fn with_lasting_policy(sandbox: TestSandbox) -> TestSandbox {
    sandbox.allow_only(&["8.8.8.8"]);
    sandbox
}

/// Asserts that this policy is enforced, reported and stored.
#[track_caller]
pub fn assert_lasting_policy(sandbox: &TestSandbox) {
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("1.1.1.1");
    let expected = json!({ "allowOut": ["8.8.8.8"], "denyOut": ["0.0.0.0/0"] });
    assert_eq!(sandbox.status()["network"], expected);
    let file = sandbox.testbed.agent().state_dir().join(format!("sandboxes/{}.json", sandbox.id));
    let kept = std::fs::read_to_string(file).or_fail("reading the state");
    assert!(kept.contains("8.8.8.8") && !kept.contains("1.1.1.1"), "{kept}");
}

/// Asserts that all four interfaces refuse this `network` and name the field and the entry.
#[track_caller]
pub fn assert_network_refused(sandbox: &TestSandbox, network: &Value, field: &str, entry: &str) {
    let (id, stage) = (&sandbox.id, &sandbox.testbed);
    let spec = sandbox.sandbox_spec(&json!({ "network": network }));
    let put = stage.request("PUT", &format!("/agent/v1/sandboxes/{id}"), &spec);
    let update = stage.request("PUT", &format!("/sandboxes/{id}/network"), network);
    for answer in [put, update] {
        let message = answer.json()["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.status, &answer.json()["code"]), (400, &json!(400)), "{network}");
        let named = message.contains(field) && message.contains(entry);
        assert!(named, "{network}: {message:?} names neither {field:?} nor {entry:?}");
    }
    for command in ["check", "apply"] {
        assert_cli_refuses(sandbox, command, &spec.to_string(), field, entry);
    }
}

/// Asserts that the command line refuses this text: exit status 2, field and entry on stderr.
#[track_caller]
pub fn assert_cli_refuses(
    sandbox: &TestSandbox,
    command: &str,
    text: &str,
    field: &str,
    entry: &str,
) {
    let ran = sandbox.testbed.cli_with_stdin(&[command, "-f", "-"], text);
    assert_eq!((ran.exit_code, ran.stdout.as_str()), (2, ""), "{command} {text}: {ran:?}");
    let named = ran.stderr.contains(field) && ran.stderr.contains(entry);
    assert!(named, "{command} {text}: {:?} names neither {field:?} nor {entry:?}", ran.stderr);
}
