//! What `explain` and `get` say is what was seen.

use policy_tests::{
    probe::Seen,
    server,
    stage::{Guest, OrFail as _, Shared},
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");

/// Destinations on every line of precedence, and what `explain` should say of them.
const CASES: [(&str, &str, u8, &str, Option<u32>); 7] = [
    ("1.1.1.1", "allow_out", 6, "network.allowOut", Some(0)),
    ("8.8.8.9", "allow_out", 6, "network.allowOut", Some(1)),
    ("203.0.113.10", "deny_out", 8, "network.denyOut", Some(1)),
    ("2001:db8:2::1", "deny_out", 8, "network.denyOut", Some(2)),
    ("198.51.100.7", "no_rule", 9, "", None),
    ("169.254.169.254", "platform_deny", 5, "platform_deny", None),
    ("64:ff9b::a9fe:a9fe", "platform_deny", 5, "platform_deny", None),
];

fn sandbox() -> Guest {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({
        "allowOut": ["1.1.1.1", "8.8.8.0/24"],
        "denyOut": ["8.8.8.8", "203.0.113.0/24", "2001:db8:2::/48"],
    }));
    sandbox
}

#[test]
fn explain_says_line_and_rule_and_agrees_with_what_is_seen() {
    let sandbox = sandbox();
    for (to, reason, line, list, index) in CASES {
        let port = server::ECHO.to_string();
        let asked = ["explain", &sandbox.id, to, "--port", &port, "-o", "json"];
        let explained = sandbox.stage.cli(&asked);
        let answer = explained.json();
        let allowed = line == 6 || line == 9;
        assert_eq!(explained.code, if allowed { 0 } else { 3 }, "{to}: {explained:?}");
        assert_eq!((&answer["reason"], &answer["line"]), (&json!(reason), &json!(line)), "{to}");
        assert_eq!(answer["rule"]["list"].as_str().unwrap_or_default(), list, "{to}");
        if let Some(index) = index {
            assert_eq!(answer["rule"]["index"], index, "{to}");
        }
        let seen = sandbox.tcp(to, server::ECHO);
        assert_eq!(seen, if allowed { Seen::Answered } else { Seen::Refused }, "{to}");
    }
}

#[test]
fn explain_offline_says_the_same_as_live() {
    let sandbox = sandbox();
    let file = sandbox.stage.agent().directory().join(format!("{}.json", sandbox.id));
    let network = sandbox.status()["network"].clone();
    let spec = sandbox.spec(&json!({ "network": network }));
    std::fs::write(&file, spec.to_string()).or_fail("writing a file");
    let file = file.to_string_lossy();
    for (to, ..) in CASES {
        let live = sandbox.stage.cli(&["explain", &sandbox.id, to, "-o", "json"]);
        let offline = sandbox.stage.cli(&["explain", "-f", &file, to, "-o", "json"]);
        assert_eq!((live.code, live.json()), (offline.code, offline.json()), "{to}");
    }
}

#[test]
fn counters_tell_what_passed_and_what_did_not() {
    let sandbox = sandbox();
    let packets =
        |status: &Value, reason: &str| status["counters"][reason]["packets"].as_u64().unwrap_or(0);
    let before = sandbox.status();
    sandbox.udp("8.8.8.8", server::ECHO);
    sandbox.udp("203.0.113.10", server::ECHO);
    sandbox.udp("10.99.0.1", server::ECHO);
    let after = sandbox.status();
    for reason in ["allow_out", "deny_out", "platform_deny"] {
        assert_eq!(packets(&after, reason), packets(&before, reason) + 1, "{reason}: {after}");
    }
    assert!(packets(&after, "delivered") > packets(&before, "delivered"), "{after}");
    let denied = after["denied"]["packets"].as_u64().unwrap_or(0);
    assert_eq!(denied, packets(&after, "deny_out") + packets(&after, "platform_deny"));
    let table = sandbox.stage.cli(&["get", &sandbox.id]);
    assert_eq!(table.code, 0, "{table:?}");
    assert!(table.stdout.contains("deny_out") && table.stdout.contains("enforcing"), "{table:?}");
}
