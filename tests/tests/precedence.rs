//! Which destinations a sandbox reaches: the precedence of rules, seen with real sockets, programs
//! attached at TC as by default.

use policy_tests::{precedence_tests, probe::Seen, server, stage::Shared};
use serde_json::json;

static STAGE: Shared = Shared::with("");

precedence_tests!(STAGE);

#[test]
fn every_port_of_an_allowed_address_answers() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["1.1.1.1"] }));
    for port in [server::SSH, server::HTTP, server::HTTPS, server::ECHO] {
        assert_eq!(sandbox.tcp("1.1.1.1", port), Seen::Answered, "port {port}");
    }
    assert_eq!(sandbox.tcp("1.1.1.1", server::CLOSED), Seen::Refused, "by the server itself");
}

#[test]
fn equal_policies_of_two_sandboxes_are_each_their_own() {
    let (one, other) = (STAGE.sandbox(), STAGE.sandbox());
    let deny = json!({ "denyOut": ["8.8.8.8"] });
    one.network(deny.clone());
    other.network(deny);
    one.is_refused("8.8.8.8");
    other.network(json!({}));
    other.reaches("8.8.8.8");
    one.is_refused("8.8.8.8");
}

#[test]
fn a_policy_of_many_entries_is_enforced() {
    let sandbox = STAGE.sandbox();
    let mut deny: Vec<String> =
        (0..50_000).map(|i| format!("100.{}.{}.0/28", 128 + i / 256, i % 256)).collect();
    deny.truncate(32_768);
    deny.extend((0..20_000).map(|i| format!("2001:db8:{i:x}:7::/64")));
    deny.extend(["203.0.113.10".to_owned(), "2001:db8:2::1".to_owned()]);
    sandbox.network(json!({ "denyOut": deny }));
    sandbox.is_refused("203.0.113.10");
    sandbox.is_refused("2001:db8:2::1");
    sandbox.reaches("203.0.113.11");
    sandbox.reaches("2001:db8:1::1");
}
