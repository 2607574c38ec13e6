//! What `explain` and `get` say is what was seen.

use std::net::IpAddr;

use policy_tests::{
    names::zone::Answer,
    probe::Seen,
    server,
    stage::{Guest, OrFail as _, RESOLVERS, Shared, ip},
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");
static NAMES: Shared = Shared::with_names(RESOLVERS);

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

/// What `explain` says of a name is what a client sees.
#[test]
fn a_name_is_resolved_and_judged_as_the_proxy_does() {
    let sandbox = NAMES.sandbox();
    let stage = &sandbox.stage;
    let (good, denied) = (stage.site("good.explained.example"), stage.site("other.test"));
    let zone = &stage.names().zone;
    zone.set("private.explained.example", Answer::of(&[ip("10.0.0.5")]));
    zone.set("mixed.explained.example", Answer::of(&[ip("10.0.0.5"), good.v4]));
    sandbox.may_only_reach(&["*.explained.example"]);
    for (name, reason, seen) in [
        (good.name.as_str(), "allow_name", true),
        ("mixed.explained.example", "allow_name", true),
        ("private.explained.example", "platform_deny", false),
        ("nosuch.explained.example", "name_unresolved", false),
        (denied.name.as_str(), "name_not_allowed", false),
    ] {
        let url = format!("http://{name}/");
        let explained = stage.cli(&["explain", &sandbox.id, &url, "-o", "json"]);
        let answer = explained.json();
        assert_eq!((explained.code, &answer["reason"]), (if seen { 0 } else { 3 }, &json!(reason)));
        let fetched = sandbox.curl(&url).misled_to(denied.v4).run();
        assert_eq!(fetched.status == 200, seen, "{name}: {fetched:?}");
    }
    let mixed = ["explain", &sandbox.id, "https://mixed.explained.example/", "-o", "json"];
    let mixed = stage.cli(&mixed).json();
    let of = |address: IpAddr| {
        let all = mixed["addresses"].as_array().or_fail("addresses").iter();
        let address = address.to_string();
        let one = all.clone().find(|one| one["address"] == address.as_str()).or_fail("the address");
        one["reason"].clone()
    };
    assert_eq!((of(ip("10.0.0.5")), of(good.v4)), (json!("platform_deny"), json!("allow_name")));
}

#[test]
fn without_a_port_it_says_what_differs_by_port() {
    let sandbox = NAMES.sandbox();
    let site = sandbox.stage.site("ports.explained.example");
    sandbox.may_only_reach(&[&site.name]);
    let explained = sandbox.stage.cli(&["explain", &sandbox.id, &site.name]);
    assert_eq!(explained.code, 0, "{explained:?}");
    for line in [
        "port    80, 443: allowed by allow_name (network.allowOut[0]: ports.explained.example)",
        "port    others: denied by deny_out (network.denyOut[0]: 0.0.0.0/0)",
        &format!("address {}: allowed by allow_name", site.v4),
    ] {
        assert!(explained.stdout.contains(line), "{line}: {explained:?}");
    }
    let ssh = sandbox.stage.cli(&["explain", &sandbox.id, &site.name, "--port", "22"]);
    assert_eq!((ssh.code, ssh.stdout.contains("deny_out")), (3, true), "{ssh:?}");
}

#[test]
fn without_an_agent_names_are_not_resolved() {
    let sandbox = NAMES.sandbox();
    let network = json!({ "allowOut": ["*.explained.example"], "denyOut": ["0.0.0.0/0"] });
    let spec = sandbox.spec(&json!({ "network": network })).to_string();
    for (to, code, word) in [
        ("https://nosuch.explained.example/x", 0, "allow_name"),
        ("nosuch.explained.example", 0, "TCP ports 80 and 443"),
        ("http://other.test", 3, "name_not_allowed"),
        ("ssh://nosuch.explained.example", 2, "give the address in place of the name"),
    ] {
        let ran = sandbox.stage.cli_with(&["explain", "-f", "-", to], &spec);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!((ran.code, said.contains(word)), (code, true), "{to}: {ran:?}");
    }
}
