//! `explain` and `get` agree with the observed verdicts.

use std::net::IpAddr;

use policy_testbed::{
    named_internet::dns_zone::DnsAnswer,
    probe::ProbeResult,
    test_servers,
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, parse_ip},
};
use serde_json::{Value, json};

use crate::sandbox_with_rules;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");
static NAMED_TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

/// Destinations for every line of the precedence, and the expected output of `explain`.
const DESTINATIONS: [(&str, &str, u8, &str, Option<u32>); 7] = [
    ("1.1.1.1", "allow_out", 6, "network.allowOut", Some(0)),
    ("8.8.8.9", "allow_out", 6, "network.allowOut", Some(1)),
    ("203.0.113.10", "deny_out", 8, "network.denyOut", Some(1)),
    ("2001:db8:2::1", "deny_out", 8, "network.denyOut", Some(2)),
    ("198.51.100.7", "no_rule", 9, "", None),
    ("169.254.169.254", "platform_deny", 5, "platform_deny", None),
    ("64:ff9b::a9fe:a9fe", "platform_deny", 5, "platform_deny", None),
];

#[test]
fn explain_says_line_and_rule_and_agrees_with_what_is_seen() {
    let sandbox = sandbox_with_rules(&TESTBED);
    for (to, reason, line, list, index) in DESTINATIONS {
        let port = test_servers::ECHO_PORT.to_string();
        let asked = ["explain", &sandbox.id, to, "--port", &port, "-o", "json"];
        let explained = sandbox.testbed.cli(&asked);
        let answer = explained.json();
        let allowed = line == 6 || line == 9;
        assert_eq!(explained.exit_code, if allowed { 0 } else { 3 }, "{to}: {explained:?}");
        assert_eq!((&answer["reason"], &answer["line"]), (&json!(reason), &json!(line)), "{to}");
        assert_eq!(answer["rule"]["list"].as_str().unwrap_or_default(), list, "{to}");
        if let Some(index) = index {
            assert_eq!(answer["rule"]["index"], index, "{to}");
        }
        let seen = sandbox.probe_tcp(to, test_servers::ECHO_PORT);
        assert_eq!(
            seen,
            if allowed { ProbeResult::Answered } else { ProbeResult::Refused },
            "{to}"
        );
    }
}

#[test]
fn explain_offline_says_the_same_as_live() {
    let sandbox = sandbox_with_rules(&TESTBED);
    let file = sandbox.testbed.agent().directory().join(format!("{}.json", sandbox.id));
    let network = sandbox.status()["network"].clone();
    let spec = sandbox.sandbox_spec(&json!({ "network": network }));
    std::fs::write(&file, spec.to_string()).or_fail("writing a file");
    let file = file.to_string_lossy();
    for (to, ..) in DESTINATIONS {
        let live = sandbox.testbed.cli(&["explain", &sandbox.id, to, "-o", "json"]);
        let offline = sandbox.testbed.cli(&["explain", "-f", &file, to, "-o", "json"]);
        assert_eq!((live.exit_code, live.json()), (offline.exit_code, offline.json()), "{to}");
    }
}

#[test]
fn counters_show_what_passed_and_what_did_not() {
    let sandbox = sandbox_with_rules(&TESTBED);
    let packets =
        |status: &Value, reason: &str| status["counters"][reason]["packets"].as_u64().unwrap_or(0);
    let before = sandbox.status();
    sandbox.probe_udp("8.8.8.8", test_servers::ECHO_PORT);
    sandbox.probe_udp("203.0.113.10", test_servers::ECHO_PORT);
    sandbox.probe_udp("10.99.0.1", test_servers::ECHO_PORT);
    let after = sandbox.status();
    for reason in ["allow_out", "deny_out", "platform_deny"] {
        assert_eq!(packets(&after, reason), packets(&before, reason) + 1, "{reason}: {after}");
    }
    assert!(packets(&after, "delivered") > packets(&before, "delivered"), "{after}");
    let denied = after["denied"]["packets"].as_u64().unwrap_or(0);
    assert_eq!(denied, packets(&after, "deny_out") + packets(&after, "platform_deny"));
    let table = sandbox.testbed.cli(&["get", &sandbox.id]);
    assert_eq!(table.exit_code, 0, "{table:?}");
    assert!(table.stdout.contains("deny_out") && table.stdout.contains("enforcing"), "{table:?}");
}

/// For a name, `explain` agrees with what a client observes.
#[test]
fn a_name_is_resolved_and_judged_as_the_proxy_does() {
    let sandbox = NAMED_TESTBED.add_sandbox();
    let stage = &sandbox.testbed;
    let (good, denied) = (stage.add_site("good.explained.example"), stage.add_site("other.test"));
    let zone = &stage.named_internet().zone;
    zone.set_answer(
        "private.explained.example",
        DnsAnswer::with_addresses(&[parse_ip("10.0.0.5")]),
    );
    zone.set_answer(
        "mixed.explained.example",
        DnsAnswer::with_addresses(&[parse_ip("10.0.0.5"), good.v4]),
    );
    sandbox.allow_only(&["*.explained.example"]);
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
        assert_eq!(
            (explained.exit_code, &answer["reason"]),
            (if seen { 0 } else { 3 }, &json!(reason))
        );
        let fetched = sandbox.curl(&url).resolving_to(denied.v4).run();
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
    assert_eq!(
        (of(parse_ip("10.0.0.5")), of(good.v4)),
        (json!("platform_deny"), json!("allow_name"))
    );
}

#[test]
fn without_a_port_it_says_what_differs_by_port() {
    let sandbox = NAMED_TESTBED.add_sandbox();
    let site = sandbox.testbed.add_site("ports.explained.example");
    sandbox.allow_only(&[&site.name]);
    let explained = sandbox.testbed.cli(&["explain", &sandbox.id, &site.name]);
    assert_eq!(explained.exit_code, 0, "{explained:?}");
    for line in [
        "port    80, 443: allowed by allow_name (network.allowOut[0]: ports.explained.example)",
        "port    others: denied by deny_out (network.denyOut[0]: 0.0.0.0/0)",
        &format!("address {}: allowed by allow_name", site.v4),
    ] {
        assert!(explained.stdout.contains(line), "{line}: {explained:?}");
    }
    let ssh = sandbox.testbed.cli(&["explain", &sandbox.id, &site.name, "--port", "22"]);
    assert_eq!((ssh.exit_code, ssh.stdout.contains("deny_out")), (3, true), "{ssh:?}");
}

#[test]
fn without_an_agent_names_are_not_resolved() {
    let sandbox = NAMED_TESTBED.add_sandbox();
    let network = json!({ "allowOut": ["*.explained.example"], "denyOut": ["0.0.0.0/0"] });
    let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
    for (to, code, word) in [
        ("https://nosuch.explained.example/x", 0, "allow_name"),
        ("nosuch.explained.example", 0, "TCP ports 80 and 443"),
        ("http://other.test", 3, "name_not_allowed"),
        ("ssh://nosuch.explained.example", 2, "give the address in place of the name"),
    ] {
        let ran = sandbox.testbed.cli_with_stdin(&["explain", "-f", "-", to], &spec);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert_eq!((ran.exit_code, said.contains(word)), (code, true), "{to}: {ran:?}");
    }
}
