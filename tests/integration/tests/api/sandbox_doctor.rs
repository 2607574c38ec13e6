//! `doctor ID`: whether a sandbox is enforced as its policy says.

use policy_testbed::{
    network::command,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, RULES_CONFIG, SharedTestbed, TestSandbox},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RULES_CONFIG);

/// The exit status, and the findings by what was checked.
#[track_caller]
fn diagnose(sandbox: &TestSandbox) -> (i32, Vec<Value>) {
    let ran = sandbox.testbed.cli(&["doctor", &sandbox.id, "-o", "json"]);
    let findings = ran.json().as_array().cloned().or_fail(&ran.stderr);
    (ran.exit_code, findings)
}

/// What was found about something, with this state.
#[track_caller]
fn found(findings: &[Value], what: &str, state: &str) -> String {
    let mut named = findings.iter().filter(|finding| finding["what"] == what);
    let finding = named.next().or_fail(&format!("{what}: {findings:?}"));
    assert_eq!(finding["state"], state, "{finding}");
    finding["found"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn an_enforced_sandbox_needs_no_repair() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    let (exit_code, findings) = diagnose(&sandbox);
    assert_eq!(exit_code, 0, "{findings:?}");
    for what in ["interface", "programs", "policy", "guard"] {
        found(&findings, what, "ok");
    }
    assert_eq!(found(&findings, "verdict", "ok"), "a datagram to 8.8.8.8 passes");
}

#[test]
fn the_kernels_verdict_is_told_for_a_sandbox_without_internet() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_config(&json!({ "allowInternetAccess": false, "network": { "dnsServers": [] } }));
    let (exit_code, findings) = diagnose(&sandbox);
    assert_eq!(exit_code, 0, "{findings:?}");
    assert!(found(&findings, "verdict", "ok").ends_with("is dropped"), "{findings:?}");
}

#[test]
fn an_interface_that_is_gone_is_missing() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    let mut delete = sandbox.testbed.network.host.command("ip").or_fail("entering the host");
    command::run(delete.args(["link", "del", &sandbox.interface])).or_fail("deleting it");
    let (exit_code, findings) = diagnose(&sandbox);
    assert_eq!((exit_code, findings.len()), (1, 1), "{findings:?}");
    let problem = found(&findings, "interface", "missing");
    assert_eq!(problem, format!("{} does not exist, so nothing passes", sandbox.interface));
}

#[test]
fn names_that_do_not_resolve_and_secrets_that_do_not_exist_are_named() {
    let sandbox = TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("doctor.example");
    let header = json!({ "Authorization": "Bearer ${e2b.secrets.of-the-doctor}" });
    sandbox.apply_network(json!({
        "allowOut": [site.name, "nowhere.doctor.example"], "denyOut": ["0.0.0.0/0"],
        "rules": { "doctor.example": [{ "transform": { "headers": header } }] },
    }));
    let (exit_code, findings) = diagnose(&sandbox);
    assert_eq!(exit_code, 1, "{findings:?}");
    found(&findings, "proxy", "ok");
    assert!(found(&findings, "name", "ok").starts_with("doctor.example, "), "{findings:?}");
    let unresolved = findings.iter().find(|finding| finding["state"] == "degraded");
    let unresolved = unresolved.or_fail(&format!("{findings:?}"));
    assert_eq!(unresolved["found"], "nowhere.doctor.example does not resolve");
    let secret = found(&findings, "secret", "missing");
    assert_eq!(secret, "there is no secret of-the-doctor: requests to doctor.example get 502");
    let stored = sandbox.testbed.cli_with_stdin(&["secrets", "set", "of-the-doctor"], "value");
    assert_eq!(stored.exit_code, 0, "{}", stored.stderr);
    let (exit_code, findings) = diagnose(&sandbox);
    assert_eq!(exit_code, 0, "{findings:?}");
    assert_eq!(found(&findings, "secret", "ok"), "of-the-doctor, for doctor.example");
}

#[test]
fn an_unknown_sandbox_is_an_error() {
    let ran = TESTBED.testbed().cli(&["doctor", "nosuch"]);
    assert_eq!(ran.exit_code, 1);
    assert!(ran.stderr.contains("nosuch"), "{}", ran.stderr);
}
