//! The authorities of sandboxes: one each, from its first rule to its end.

use policy_testbed::testbed::{OrFail as _, RULES_CONFIG, TestSandbox, Testbed};
use serde_json::{Value, json};

use super::{CREDENTIAL, RuleScenario, TESTBED, authorization};

fn apply_rule(sandbox: &TestSandbox) {
    sandbox.apply_network(json!({
        "allowOut": ["authority.rules.example"], "denyOut": ["0.0.0.0/0"],
        "rules": { "authority.rules.example": authorization(CREDENTIAL) },
    }));
}

#[test]
fn the_api_the_command_and_the_sandbox_itself_tell_the_same() {
    let scenario = RuleScenario::new("told.rules.example");
    let (testbed, id) = (&scenario.sandbox.testbed, &scenario.sandbox.id);
    let inside = scenario.sandbox.fetch_authority();
    assert!(inside.starts_with("-----BEGIN CERTIFICATE-----"), "{inside}");
    let path = format!("/agent/v1/sandboxes/{id}/ca");
    let answer = testbed.request("GET", &path, &Value::Null);
    assert_eq!((answer.status, &answer.body), (200, &inside));
    let printed = testbed.cli(&["ca", id]);
    assert_eq!(printed.stdout.trim_end(), inside.trim_end());
}

#[test]
fn a_sandbox_without_rules_has_none() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&["some.rules.example"]);
    let path = format!("/agent/v1/sandboxes/{}/ca", sandbox.id);
    let answer = sandbox.testbed.request("GET", &path, &Value::Null);
    assert_eq!(answer.status, 404);
    assert!(answer.body.contains("has no network.rules"), "{}", answer.body);
    let unknown = sandbox.testbed.request("GET", "/agent/v1/sandboxes/nowhere/ca", &Value::Null);
    assert_eq!(unknown.status, 404);
}

#[test]
fn each_sandbox_has_its_own_which_stays_until_the_sandbox_goes() {
    let stage = Testbed::with_names(RULES_CONFIG);
    let (one, other) = (stage.add_sandbox(), stage.add_sandbox());
    apply_rule(&one);
    apply_rule(&other);
    let (first, others) = (one.fetch_authority(), other.fetch_authority());
    assert_ne!(first, others);
    one.allow_only(&["authority.rules.example"]);
    apply_rule(&one);
    assert_eq!(one.fetch_authority(), first, "after a change of the policy");
    stage.kill_agent();
    stage.restart_agent();
    assert_eq!(one.fetch_authority(), first, "after a restart");
    let file = stage.agent().state_dir().join(format!("authorities/{}.pem", one.id));
    assert!(file.exists());
    one.delete();
    assert!(!file.exists());
    apply_rule(&one);
    assert_ne!(one.fetch_authority(), first, "of the next sandbox");
    assert_eq!(other.fetch_authority(), others);
    std::fs::metadata(&file).or_fail("the next one's file");
}
