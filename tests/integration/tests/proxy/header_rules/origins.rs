//! Servers whose certificates are not accepted.

use policy_testbed::named_internet::certificate_authority::ServerCertificate;

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
