//! Invalid descriptions of a sandbox: the API responds with 400, the command line exits with 2,
//! both name field and entry, and the policy in force stays.
//! line ends with 2, both name field and entry, and the policy in force stays.

use policy_testbed::{
    network::host_router::UPLINK_INTERFACE,
    testbed::{
        OrFail as _, SharedTestbed, TestSandbox, Testbed, assert_cli_refuses,
        assert_lasting_policy, with_lasting_policy,
    },
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

fn sandbox_with_lasting_policy() -> TestSandbox {
    with_lasting_policy(TESTBED.add_sandbox())
}

#[test]
fn a_sandbox_that_is_described_wrongly() {
    let sandbox = sandbox_with_lasting_policy();
    let cases: [(&str, Value, &str); 26] = [
        ("sandboxID", json!(""), ""),
        ("sandboxID", json!("Upper"), "Upper"),
        ("sandboxID", json!("../../etc"), "../../etc"),
        ("sandboxID", json!("a".repeat(64)), "63"),
        ("sandboxID", json!(7), "7"),
        ("interface", json!(""), ""),
        ("interface", json!("an/interface"), "an/interface"),
        ("interface", json!("sixteen-letters-"), "sixteen-letters-"),
        ("interface", Value::Null, ""),
        ("addresses", json!([]), "address"),
        ("addresses", json!("10.11.0.2"), ""),
        ("addresses", json!(["10.11.0.2", "10.11.0.0/24"]), "[1]"),
        ("addresses", json!(["10.11.0.2", "10.11.0.2"]), "[1]"),
        ("addresses", json!(["0.0.0.0"]), "0.0.0.0"),
        ("addresses", json!(["127.0.0.1"]), "127.0.0.1"),
        ("addresses", json!(["224.0.0.1"]), "224.0.0.1"),
        ("addresses", json!(["255.255.255.255"]), "255.255.255.255"),
        ("addresses", json!(["example.com"]), "example.com"),
        ("addresses", json!(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5"]), "[4]"),
        ("mac", json!("02:fc:00:00:00"), "02:fc:00:00:00"),
        ("mac", json!("02:fc:00:00:00:0g"), "02:fc:00:00:00:0g"),
        ("mac", json!("ff:ff:ff:ff:ff:ff"), "ff:ff:ff:ff:ff:ff"),
        ("mac", json!("00:00:00:00:00:00"), "00:00:00:00:00:00"),
        ("netns", json!("slot1"), "slot1"),
        ("allowInternetAccess", json!("no"), "no"),
        ("network", json!([]), ""),
    ];
    for (field, value, entry) in cases {
        let mut spec = sandbox.sandbox_spec(&json!({}));
        spec[field] = value;
        for command in ["check", "apply"] {
            assert_cli_refuses(&sandbox, command, &spec.to_string(), field, entry);
        }
        if field != "sandboxID" {
            let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
            let answer = sandbox.testbed.request("PUT", &path, &spec);
            let named = answer.body.contains(field) && answer.body.contains(entry);
            assert!(answer.status == 400 && named, "{spec}: {answer:?}");
        }
    }
    assert_lasting_policy(&sandbox);
}

#[test]
fn text_that_is_not_json() {
    let sandbox = sandbox_with_lasting_policy();
    let good = sandbox.sandbox_spec(&json!({})).to_string();
    let twice = good.replacen('{', "{\"interface\":\"lo\",", 1);
    let texts = [
        "",
        " ",
        "{",
        "}",
        "[",
        "nul",
        "null",
        "42",
        "\"text\"",
        "{]",
        "{\"sandboxID\":}",
        "[{}]",
        "{'sandboxID':'a'}",
        "{\"network\":{\"denyOut\":[\"1.1.1.1\",]}}",
        "sandboxID: a",
        &twice,
        &format!("{good} and more"),
        &good.replace(':', "="),
        &format!("\u{feff}{good}"),
        &"[".repeat(100_000),
        &good[..good.len() - 1],
    ];
    for text in texts {
        for path in ["/agent/v1/sandboxes/ID", "/sandboxes/ID/network", "/agent/v1/sandboxes"] {
            let path = path.replace("ID", &sandbox.id);
            let answer = sandbox.testbed.agent().request("PUT", &path, text).or_fail("asking");
            let shown: String = text.chars().take(60).collect();
            assert_eq!(answer.status, 400, "{path} {shown}: {}", answer.body);
            assert_ne!(answer.json()["message"], Value::Null, "{path} {shown}: {}", answer.body);
        }
        // The command line takes YAML too, which may begin with a byte order mark.
        let commands: &[&str] =
            if text.starts_with('\u{feff}') { &[] } else { &["check", "apply"] };
        for command in commands {
            assert_cli_refuses(&sandbox, command, text, "", "");
        }
    }
    assert_lasting_policy(&sandbox);
}

#[test]
fn a_file_with_one_bad_sandbox_changes_none() {
    let (sandbox, other) = (sandbox_with_lasting_policy(), sandbox_with_lasting_policy());
    let good = sandbox.sandbox_spec(&json!({ "network": { "denyOut": ["8.8.8.8"] } }));
    let bad = other.sandbox_spec(&json!({ "network": { "denyOut": ["8.8.8.8", "nonsense/"] } }));
    let lines = format!("{good}\n{bad}\n");
    for text in [json!([good, bad]).to_string(), json!([bad, good]).to_string(), lines] {
        assert_cli_refuses(&sandbox, "apply", &text, "denyOut[1]", "nonsense/");
        assert_lasting_policy(&sandbox);
        assert_lasting_policy(&other);
    }
    let same = json!([good, good]).to_string();
    assert_cli_refuses(&sandbox, "apply", &same, "sandboxID", &sandbox.id);
    assert_lasting_policy(&sandbox);
}

#[test]
fn an_interface_or_address_that_another_sandbox_has() {
    let (sandbox, other) =
        (sandbox_with_lasting_policy(), with_lasting_policy(TESTBED.add_sandbox()));
    let third = TESTBED.add_sandbox();
    let spec = |field: &str, value: Value| {
        let mut spec = third.sandbox_spec(&json!({}));
        spec[field] = value;
        spec
    };
    let interface = spec("interface", json!(sandbox.interface));
    let address = spec("addresses", json!([sandbox.addressing.v4()]));
    let taken = sandbox.addressing.v4().to_string();
    for (spec, field, entry) in
        [(&interface, "interface", &sandbox.interface), (&address, "addresses[0]", &taken)]
    {
        assert_cli_refuses(&sandbox, "apply", &spec.to_string(), field, entry);
        // `check` also finds the conflict if both are in one file.
        let both = json!([sandbox.sandbox_spec(&json!({})), spec]).to_string();
        for command in ["check", "apply"] {
            assert_cli_refuses(&sandbox, command, &both, field, entry);
            assert_cli_refuses(&sandbox, command, &both, field, &sandbox.id);
        }
    }
    assert_lasting_policy(&sandbox);
    assert_lasting_policy(&other);
}

#[test]
fn the_interface_of_the_default_route() {
    let sandbox = sandbox_with_lasting_policy();
    for (interface, problem) in [(UPLINK_INTERFACE, "default route"), ("lo", "loopback")] {
        let mut spec = TESTBED.add_sandbox().sandbox_spec(&json!({}));
        spec["interface"] = json!(interface);
        assert_cli_refuses(&sandbox, "apply", &spec.to_string(), interface, problem);
        let path = format!("/agent/v1/sandboxes/{}", spec["sandboxID"].as_str().or_fail("an ID"));
        let answer = sandbox.testbed.request("PUT", &path, &spec);
        assert_eq!((answer.status, answer.body.contains(problem)), (400, true), "{}", answer.body);
    }
    assert_lasting_policy(&sandbox);
}

#[test]
fn the_interface_of_the_default_route_is_accepted_with_force() {
    let stage = Testbed::with_config("");
    let mut spec = stage.add_sandbox().sandbox_spec(&json!({}));
    spec["interface"] = json!(UPLINK_INTERFACE);
    let forced = stage.cli_with_stdin(&["apply", "--force", "-f", "-"], &spec.to_string());
    assert_eq!(forced.exit_code, 0, "{forced:?}");
    // Once the sandbox exists, another policy needs no `--force`.
    let again = stage.cli_with_stdin(&["apply", "-f", "-"], &spec.to_string());
    assert_eq!(again.exit_code, 0, "{again:?}");
}
