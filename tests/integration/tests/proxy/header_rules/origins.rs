//! Servers whose certificates are not accepted.

use policy_testbed::{
    named_internet::certificate_authority::ServerCertificate,
    testbed::{RELOAD_REFUSED, RELOADED, RESOLVER_CONFIG, RULES_CONFIG, Testbed},
};

use super::RuleScenario;

#[track_caller]
fn assert_not_verified(name: &str, certificate: ServerCertificate, problem: &str) {
    let scenario = RuleScenario::with_certificate(name, certificate);
    for option in ["--http1.1", "--http2"] {
        let refused = scenario.curl("/").with_arguments(&[option]).run();
        refused.assert_refused(502, "origin_not_verified");
        let text = refused.text();
        assert!(text.contains(&format!("subject \"CN={name}\"")), "{text}");
        assert!(text.contains(problem), "{text}");
    }
    let json = scenario.curl("/").with_arguments(&["-H", "Accept: application/json"]).run();
    assert_eq!(json.page_json()["reason"], "origin_not_verified", "{json:?}");
    scenario.sandbox.assert_name_denied(name, "origin_not_verified");
    assert!(scenario.origin.requests().is_empty());
}

#[test]
fn an_expired_certificate_is_refused_and_named() {
    let name = "expired.rules.example";
    assert_not_verified(name, ServerCertificate::Expired, "it expired on Jan  1 00:00:00 2021");
}

#[test]
fn a_self_signed_certificate_is_refused_and_named() {
    assert_not_verified(
        "self-signed.rules.example",
        ServerCertificate::SelfSigned,
        "it is self-signed",
    );
}

#[test]
fn roots_are_read_anew_at_a_reload() {
    let stage = Testbed::with_names(RESOLVER_CONFIG);
    let (name, sandbox) = ("reloaded.rules.example", stage.add_sandbox());
    let scenario = RuleScenario::in_sandbox(sandbox, name, ServerCertificate::Valid);
    let assert_refused = || scenario.curl("/").run().assert_refused(502, "origin_not_verified");
    assert_refused();
    stage.reload_config("[rules]\nextra_roots = \"/nowhere\"", RELOAD_REFUSED);
    let log = stage.agent_log();
    assert!(log.contains("rules.extra_roots: cannot read /nowhere"), "{log}");
    assert_refused();
    stage.reload_config(RULES_CONFIG, RELOADED);
    assert_eq!(scenario.curl("/").run().status, 200);
    stage.reload_config(RESOLVER_CONFIG, RELOADED);
    assert_refused();
}
