//! Invalid values of every field of `network`: the API responds with 400, the command line exits
//! with 2, both name field and entry, and the policy in force stays.
//! line ends with 2, both name field and entry, and the policy in force stays.

use policy_testbed::testbed::{
    SharedTestbed, TestSandbox, assert_cli_refuses, assert_lasting_policy, assert_network_refused,
    with_lasting_policy,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

fn rule_with_header(name: &str, value: &str) -> Value {
    json!({ "rules": { "a.example": [{ "transform": { "headers": { name: value } } }] } })
}

fn sandbox_with_lasting_policy() -> TestSandbox {
    with_lasting_policy(TESTBED.add_sandbox())
}

/// A `network`, and the field and the entry that its error must name.
type InvalidNetwork = (Value, &'static str, &'static str);

fn invalid_addresses() -> Vec<InvalidNetwork> {
    let wrong = [
        "",
        " ",
        "1.1.1",
        "1.1.1.1.1",
        "256.1.1.1",
        "1.1.1.1/33",
        "1.1.1.1/",
        "1.1.1.1/-1",
        "1.1.1.1/08",
        "1.1.1.1/a",
        "01.1.1.1",
        "1.1.1.1:443",
        "1.1.1.1-2.2.2.2",
        "1.1.1.*",
        "0.0.0.0",
        "0.0.0.0/8",
        "::",
        "::/96",
        "8.8.8.8/0",
        "2001:db8::/129",
        "2001:db8::g",
        "2001:::1",
        "[2001:db8::1]",
        "[2001:db8::1]:443",
        "fe80::1%eth0",
        "1.1.1.1 ",
        " 1.1.1.1",
        "1.1.1.1\n",
        "1.1.1.1,2.2.2.2",
        "http://1.1.1.1",
        "1.1.1.1/24/24",
        "0x01010101",
        "١.١.١.١",
        "ALL_TRAFFIC",
    ];
    let mut cases: Vec<InvalidNetwork> = Vec::new();
    for entry in wrong {
        let shown = entry.trim_matches(['\n', ' ']);
        cases.push((json!({ "denyOut": ["1.1.1.1", entry] }), "denyOut[1]", shown));
        cases.push((
            json!({ "allowOut": ["8.8.8.8", "1.1.1.1", entry], "denyOut": ["0.0.0.0/0"] }),
            "allowOut[2]",
            shown,
        ));
    }
    cases
}

#[test]
fn an_invalid_address() {
    let sandbox = sandbox_with_lasting_policy();
    for (network, field, entry) in invalid_addresses() {
        assert_network_refused(&sandbox, &network, field, entry);
    }
    assert_lasting_policy(&sandbox);
}

#[test]
fn an_invalid_or_misplaced_name() {
    let sandbox = sandbox_with_lasting_policy();
    let wrong = [
        "exa mple.com",
        "-example.com",
        "example-.com",
        "example..com",
        ".example.com",
        "*example.com",
        "www.*.com",
        "*.*.com",
        "*.",
        "**",
        "example.com:443",
        "https://example.com",
        "example.com/path",
        "user@example.com",
        "example.com?",
    ];
    for entry in wrong {
        let network = json!({ "allowOut": [entry], "denyOut": ["0.0.0.0/0"] });
        assert_network_refused(&sandbox, &network, "allowOut[0]", entry);
    }
    let label = "a".repeat(64);
    let network = json!({ "allowOut": [format!("{label}.com")], "denyOut": ["0.0.0.0/0"] });
    assert_network_refused(&sandbox, &network, "allowOut[0]", &label);
    for denied in ["example.com", "*.example.com", "*"] {
        assert_network_refused(
            &sandbox,
            &json!({ "denyOut": ["1.1.1.1", denied] }),
            "denyOut[1]",
            denied,
        );
    }
    // Names without a deny of everything: the message must say what to add.
    for network in [
        json!({ "allowOut": ["example.com"] }),
        json!({ "allowOut": ["example.com"], "denyOut": ["1.1.1.1"] }),
        json!({ "allowOut": ["example.com"], "denyOut": ["::/0"] }),
    ] {
        assert_network_refused(&sandbox, &network, "allowOut[0]", "0.0.0.0/0");
    }
    assert_lasting_policy(&sandbox);
}

#[test]
fn a_nearly_valid_entry_gets_a_suggestion() {
    let sandbox = sandbox_with_lasting_policy();
    for (entry, instead) in [
        ("github.com:443", "write github.com alone; a name holds on TCP ports 80 and 443"),
        ("https://github.com/x", "write github.com alone"),
        ("*.x.com/path", "write *.x.com alone"),
        ("1.2.3.4:443", "write 1.2.3.4 alone; an address holds for every protocol and port"),
        ("[2001:db8::1]:80", "write 2001:db8::1 alone"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1/32, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31"),
    ] {
        let network = json!({ "allowOut": [entry], "denyOut": ["0.0.0.0/0"] });
        assert_network_refused(&sandbox, &network, "allowOut[0]", instead);
    }
    let dns = with_domain_rule(json!({ "dnsServers": ["dns.google"] }));
    assert_network_refused(&sandbox, &dns, "dnsServers[0]", "write the DNS server's IP address");
    let misspelt = json!({ "allowout": ["1.1.1.1"] });
    assert_network_refused(&sandbox, &misspelt, "allowout", "did you mean allowOut?");
    assert_lasting_policy(&sandbox);
}

#[test]
fn a_field_of_the_wrong_type_or_of_no_meaning() {
    let sandbox = sandbox_with_lasting_policy();
    let cases: [InvalidNetwork; 27] = [
        (json!({ "denyOut": "0.0.0.0/0" }), "denyOut", "0.0.0.0/0"),
        (json!({ "denyOut": [1] }), "denyOut[0]", "1"),
        (json!({ "denyOut": [null] }), "denyOut[0]", "null"),
        (json!({ "denyOut": [["1.1.1.1"]] }), "denyOut[0]", ""),
        (json!({ "denyOut": {} }), "denyOut", ""),
        (json!({ "denyOut": true }), "denyOut", "true"),
        (json!({ "allowOut": "1.1.1.1" }), "allowOut", "1.1.1.1"),
        (json!({ "allowOut": [1.5] }), "allowOut[0]", "1.5"),
        (json!({ "denyout": ["0.0.0.0/0"] }), "denyout", ""),
        (json!({ "deny": ["0.0.0.0/0"] }), "deny", ""),
        (json!({ "deny_out": [], "denyOut": ["0.0.0.0/0"] }), "denyOut", ""),
        (json!({ "dnsServers": ["1.1.1.1"] }), "dnsServers", ""),
        (
            with_domain_rule(json!({ "dnsServers": ["dns.example.com"] })),
            "dnsServers[0]",
            "dns.example.com",
        ),
        (with_domain_rule(json!({ "dnsServers": ["1.1.1.1/24"] })), "dnsServers[0]", "1.1.1.1/24"),
        (with_domain_rule(json!({ "dnsServers": vec!["1.1.1.1"; 11] })), "dnsServers", "10"),
        (json!({ "egressProxy": "proxy:1080" }), "egressProxy", "object"),
        (json!({ "egressProxy": {} }), "egressProxy", "address"),
        (json!({ "egressProxy": { "address": "proxy.example.com" } }), "address", "port"),
        (json!({ "egressProxy": { "address": "10.0.0.1:1080" } }), "address", "10.0.0.1:1080"),
        (json!({ "egressProxy": { "address": "a.example:0" } }), "address", "a.example:0"),
        (json!({ "rules": { "*": [] } }), "network.rules", "Rule domain \"*\" is not a valid"),
        (json!({ "rules": { "a.b": [{}, {}] } }), "network.rules", "at most 1 transform rule."),
        (json!({ "rules": { "a.b": [{ "transforms": {} }] } }), "rules.a.b[0]", "transforms"),
        (rule_with_header("Host", "a"), "network.rules", "\"Host\""),
        (rule_with_header("X-Key", "a\r\nB: c"), "network.rules", "contains invalid characters."),
        (
            rule_with_header("X-Key", "${e2b.secrets.}"),
            "network.rules",
            "malformed E2B placeholder.",
        ),
        (rule_with_header("X-Key", "${e2b.identity.tokens.a}"), "network.rules", "identity token"),
    ];
    for (network, field, entry) in cases {
        assert_network_refused(&sandbox, &network, field, entry);
    }
    let secret = json!({ "address": "proxy.example.com:1", "password": "hush-hush" });
    assert_network_refused(&sandbox, &json!({ "egressProxy": secret }), "password", "username");
    assert_lasting_policy(&sandbox);
}

/// Adds a domain rule, which some fields require.
fn with_domain_rule(mut network: Value) -> Value {
    network["allowOut"] = json!(["example.com"]);
    network["denyOut"] = json!(["0.0.0.0/0"]);
    network
}

#[test]
fn a_list_that_is_too_long() {
    let sandbox = sandbox_with_lasting_policy();
    let entries: Vec<_> =
        (0..100_001).map(|i| format!("10.{}.{}.0/24", i / 256 % 256, i % 256)).collect();
    assert_network_refused(&sandbox, &json!({ "denyOut": entries }), "denyOut", "100000");
    assert_lasting_policy(&sandbox);
}

#[test]
fn an_invalid_ingress_field() {
    let sandbox = sandbox_with_lasting_policy();
    let cases: [InvalidNetwork; 9] = [
        (json!({ "allowPublicFrom": [] }), "allowPublicFrom", ""),
        (json!({ "allowPublicFrom": ["a.example"] }), "allowPublicFrom[0]", "a.example"),
        (json!({ "allowPublicTraffic": "yes" }), "allowPublicTraffic", "yes"),
        (json!({ "maskRequestHost": "" }), "maskRequestHost", ""),
        (json!({ "maskRequestHost": "a b" }), "maskRequestHost", "a b"),
        (json!({ "maskRequestHost": "${HOST}" }), "maskRequestHost", "${HOST}"),
        (json!({ "httpsPorts": [0] }), "httpsPorts[0]", "65535"),
        (json!({ "httpsPorts": [443, 65536] }), "httpsPorts[1]", "65536"),
        (json!({ "httpsPorts": ["443"] }), "httpsPorts[0]", "443"),
    ];
    for (network, field, entry) in cases {
        let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
        assert_cli_refuses(&sandbox, "check", &spec, field, entry);
        assert_cli_refuses(&sandbox, "apply", &spec, field, entry);
    }
    // An update concerns egress. An ingress field in it would have no effect.
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let update = sandbox.testbed.request("PUT", &path, &json!({ "allowPublicTraffic": false }));
    assert_eq!((update.status, update.body.contains("allowPublicTraffic")), (400, true));
    assert_lasting_policy(&sandbox);
}
