//! The precedence of rules, tested with real sockets and programs attached at TC, the default.

use crate::precedence_cases::precedence_tests;
use policy_testbed::{probe::ProbeResult, test_servers, testbed::SharedTestbed};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

precedence_tests!(TESTBED);

#[test]
fn every_port_of_an_allowed_address_answers() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    for port in [
        test_servers::SSH_PORT,
        test_servers::HTTP_PORT,
        test_servers::HTTPS_PORT,
        test_servers::ECHO_PORT,
    ] {
        assert_eq!(sandbox.probe_tcp("1.1.1.1", port), ProbeResult::Answered, "port {port}");
    }
    assert_eq!(
        sandbox.probe_tcp("1.1.1.1", test_servers::CLOSED_PORT),
        ProbeResult::Refused,
        "by the server itself"
    );
}

#[test]
fn equal_policies_of_two_sandboxes_are_each_their_own() {
    let (one, other) = (TESTBED.add_sandbox(), TESTBED.add_sandbox());
    let deny = json!({ "denyOut": ["8.8.8.8"] });
    one.apply_network(deny.clone());
    other.apply_network(deny);
    one.assert_refused("8.8.8.8");
    other.apply_network(json!({}));
    other.assert_reaches("8.8.8.8");
    one.assert_refused("8.8.8.8");
}

#[test]
fn a_policy_of_many_entries_is_enforced() {
    let sandbox = TESTBED.add_sandbox();
    let mut deny: Vec<String> =
        (0..50_000).map(|i| format!("100.{}.{}.0/28", 128 + i / 256, i % 256)).collect();
    deny.truncate(32_768);
    deny.extend((0..20_000).map(|i| format!("2001:db8:{i:x}:7::/64")));
    deny.extend(["203.0.113.10".to_owned(), "2001:db8:2::1".to_owned()]);
    sandbox.apply_network(json!({ "denyOut": deny }));
    sandbox.assert_refused("203.0.113.10");
    sandbox.assert_refused("2001:db8:2::1");
    sandbox.assert_reaches("203.0.113.11");
    sandbox.assert_reaches("2001:db8:1::1");
}
