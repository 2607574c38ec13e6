//! Every field of `network` wrong in every way that a user could get it wrong: the API answers 400, the command
//! line ends with 2, both name field and entry, and the policy in force stays.

use policy_tests::stage::{Guest, Shared, cli_refuses, in_force, refuses_network, still_in_force};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");

fn sandbox() -> Guest {
    in_force(STAGE.sandbox())
}

/// A `network`, and what an error about it has to name: the field and the entry.
type Case = (Value, &'static str, &'static str);

fn addresses() -> Vec<Case> {
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
    let mut cases: Vec<Case> = Vec::new();
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
fn an_address_that_is_none() {
    let sandbox = sandbox();
    for (network, field, entry) in addresses() {
        refuses_network(&sandbox, &network, field, entry);
    }
    still_in_force(&sandbox);
}

#[test]
fn a_name_that_is_none_or_in_the_wrong_place() {
    let sandbox = sandbox();
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
        refuses_network(&sandbox, &network, "allowOut[0]", entry);
    }
    let label = "a".repeat(64);
    let network = json!({ "allowOut": [format!("{label}.com")], "denyOut": ["0.0.0.0/0"] });
    refuses_network(&sandbox, &network, "allowOut[0]", &label);
    for denied in ["example.com", "*.example.com", "*"] {
        refuses_network(&sandbox, &json!({ "denyOut": ["1.1.1.1", denied] }), "denyOut[1]", denied);
    }
    // Names without a deny of everything: the message says what to add.
    for network in [
        json!({ "allowOut": ["example.com"] }),
        json!({ "allowOut": ["example.com"], "denyOut": ["1.1.1.1"] }),
        json!({ "allowOut": ["example.com"], "denyOut": ["::/0"] }),
    ] {
        refuses_network(&sandbox, &network, "allowOut[0]", "0.0.0.0/0");
    }
    still_in_force(&sandbox);
}

#[test]
fn an_entry_that_is_nearly_right_is_told_what_to_write() {
    let sandbox = sandbox();
    for (entry, instead) in [
        ("github.com:443", "write github.com alone; a name holds on TCP ports 80 and 443"),
        ("https://github.com/x", "write github.com alone"),
        ("*.x.com/path", "write *.x.com alone"),
        ("1.2.3.4:443", "write 1.2.3.4 alone; an address holds for every protocol and port"),
        ("[2001:db8::1]:80", "write 2001:db8::1 alone"),
        ("10.0.0.1-10.0.0.9", "10.0.0.1/32, 10.0.0.2/31, 10.0.0.4/30, 10.0.0.8/31"),
    ] {
        let network = json!({ "allowOut": [entry], "denyOut": ["0.0.0.0/0"] });
        refuses_network(&sandbox, &network, "allowOut[0]", instead);
    }
    let dns = names(json!({ "dnsServers": ["dns.google"] }));
    refuses_network(&sandbox, &dns, "dnsServers[0]", "write the DNS server's IP address");
    let misspelt = json!({ "allowout": ["1.1.1.1"] });
    refuses_network(&sandbox, &misspelt, "allowout", "did you mean allowOut?");
    still_in_force(&sandbox);
}

#[test]
fn a_field_of_the_wrong_type_or_of_no_meaning() {
    let sandbox = sandbox();
    let cases: [Case; 21] = [
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
        (names(json!({ "dnsServers": ["dns.example.com"] })), "dnsServers[0]", "dns.example.com"),
        (names(json!({ "dnsServers": ["1.1.1.1/24"] })), "dnsServers[0]", "1.1.1.1/24"),
        (names(json!({ "dnsServers": vec!["1.1.1.1"; 11] })), "dnsServers", "10"),
        (json!({ "egressProxy": "proxy:1080" }), "egressProxy", "object"),
        (json!({ "egressProxy": {} }), "egressProxy", "address"),
        (json!({ "egressProxy": { "address": "proxy.example.com" } }), "address", "port"),
        (json!({ "egressProxy": { "address": "10.0.0.1:1080" } }), "address", "10.0.0.1:1080"),
        (json!({ "egressProxy": { "address": "a.example:0" } }), "address", "a.example:0"),
        (json!({ "rules": { "example.com": [] } }), "rules", ""),
    ];
    for (network, field, entry) in cases {
        refuses_network(&sandbox, &network, field, entry);
    }
    let secret = json!({ "address": "proxy.example.com:1", "password": "hush-hush" });
    refuses_network(&sandbox, &json!({ "egressProxy": secret }), "password", "username");
    still_in_force(&sandbox);
}

/// A network with a domain rule, which some fields demand.
fn names(mut network: Value) -> Value {
    network["allowOut"] = json!(["example.com"]);
    network["denyOut"] = json!(["0.0.0.0/0"]);
    network
}

#[test]
fn too_long_a_list() {
    let sandbox = sandbox();
    let entries: Vec<_> =
        (0..100_001).map(|i| format!("10.{}.{}.0/24", i / 256 % 256, i % 256)).collect();
    refuses_network(&sandbox, &json!({ "denyOut": entries }), "denyOut", "100000");
    still_in_force(&sandbox);
}

#[test]
fn an_ingress_field_that_is_none() {
    let sandbox = sandbox();
    let cases: [Case; 7] = [
        (json!({ "allowPublicTraffic": "yes" }), "allowPublicTraffic", "yes"),
        (json!({ "maskRequestHost": "" }), "maskRequestHost", ""),
        (json!({ "maskRequestHost": "a b" }), "maskRequestHost", "a b"),
        (json!({ "maskRequestHost": "${HOST}" }), "maskRequestHost", "${HOST}"),
        (json!({ "httpsPorts": [0] }), "httpsPorts[0]", "65535"),
        (json!({ "httpsPorts": [443, 65536] }), "httpsPorts[1]", "65536"),
        (json!({ "httpsPorts": ["443"] }), "httpsPorts[0]", "443"),
    ];
    for (network, field, entry) in cases {
        let spec = sandbox.spec(&json!({ "network": network })).to_string();
        cli_refuses(&sandbox, "check", &spec, field, entry);
        cli_refuses(&sandbox, "apply", &spec, field, entry);
    }
    // An update is about egress; an ingress field in it would have no effect.
    let path = format!("/sandboxes/{}/network", sandbox.id);
    let update = sandbox.stage.request("PUT", &path, &json!({ "allowPublicTraffic": false }));
    assert_eq!((update.code, update.body.contains("allowPublicTraffic")), (400, true));
    still_in_force(&sandbox);
}
