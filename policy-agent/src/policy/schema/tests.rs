use super::super::parse_json;
use super::*;

const FULL_SPEC_JSON: &str = r#"{"sandboxID":"i62mff4ahtrdfdkyn2esc","interface":"tap0",
    "netns":"/run/netns/slot1","addresses":["10.11.0.2","fd00::2"],"mac":"02:fc:00:00:00:05",
    "allowInternetAccess":true,"network":{"allowOut":["1.1.1.1"],"httpsPorts":[443],
    "egressProxy":{"address":"p.example:1080","username":"me","password":"hunter2"}}}"#;

#[test]
fn only_the_state_file_holds_the_password() {
    let sandbox: SandboxSpec = parse_json(FULL_SPEC_JSON.as_bytes()).expect("good");
    let plain = serde_json::to_string(&sandbox).expect("serialises");
    assert!(!plain.contains("hunter2") && !plain.contains("password"), "{plain}");
    assert!(!format!("{sandbox:?}").contains("hunter2"));

    let whole = sandbox.to_json_with_secrets().expect("serialises").to_string();
    assert_eq!(parse_json(whole.as_bytes()), Ok(sandbox));
}

#[test]
fn output_is_canonical() {
    let sandbox: SandboxSpec = parse_json(FULL_SPEC_JSON.as_bytes()).expect("good");
    let value = sandbox.to_json_with_secrets().expect("serialises");
    let expected: serde_json::Value = serde_json::from_str(FULL_SPEC_JSON).expect("JSON");
    assert_eq!(value, expected);
}

#[test]
fn tls_is_read_as_e2bs_clients_write_it() {
    let tls = |text: &str| serde_json::from_str::<ProxyTls>(text);
    let options = ProxyTls::Options { server_name: None, ca: Some("PEM".to_owned()) };
    assert_eq!(tls(r#"{"enabled":true,"caCert":"PEM"}"#).expect("good"), options);
    assert_eq!(tls(r#"{"ca":"PEM"}"#).expect("good"), options);
    assert_eq!(tls(r#"{"enabled":false}"#).expect("good"), ProxyTls::Enabled(false));
    assert!(tls(r#"{"enabled":false,"caCert":"PEM"}"#).is_err());
    assert!(tls(r#"{"enabled":1}"#).is_err());
}

#[test]
fn an_update_replaces_what_is_egress() {
    let network = |text: &str| parse_json::<NetworkConfig>(text.as_bytes()).expect("good");
    let before = network(
        r#"{"allowOut":["1.1.1.1"],"dnsServers":[],"egressProxy":{"address":"a:1"},
        "allowInternetAccess":false,"allowPublicTraffic":false,"maskRequestHost":"h",
        "allowPublicFrom":["192.0.2.0/24"],"httpsPorts":[443]}"#,
    );
    let update = network(r#"{"denyOut":["9.9.9.9"]}"#);
    let after = network(
        r#"{"denyOut":["9.9.9.9"],"allowPublicTraffic":false,"maskRequestHost":"h",
        "allowPublicFrom":["192.0.2.0/24"],"httpsPorts":[443]}"#,
    );
    assert_eq!(before.replace_egress(&update), Ok(after));

    for (field, text) in [
        ("allowPublicTraffic", r#"{"allowPublicTraffic":true}"#),
        ("allowPublicFrom", r#"{"allowPublicFrom":["192.0.2.1"]}"#),
        ("maskRequestHost", r#"{"maskRequestHost":"h"}"#),
        ("httpsPorts", r#"{"httpsPorts":[]}"#),
    ] {
        assert_eq!(before.replace_egress(&network(text)).expect_err(text).field, field);
    }
}

#[test]
fn only_the_state_file_holds_the_values_of_headers() {
    let text = r#"{"sandboxID":"a","interface":"tap0","addresses":["10.11.0.2"],"network":{"rules":
        {"A.example":[{"transform":{"headers":{"X-Key":"hunter2"}}}],"b.example":[{}],
        "c.example":[]}}}"#;
    let sandbox: SandboxSpec = parse_json(text.as_bytes()).expect("good");
    let plain = serde_json::to_string(&sandbox).expect("serialises");
    assert!(plain.contains(r#"{"X-Key":null}"#) && !plain.contains("hunter2"), "{plain}");
    assert!(!format!("{sandbox:?}").contains("hunter2"));
    let error = parse_json::<SandboxSpec>(plain.as_bytes()).expect_err("no values");
    assert!(error.to_string().ends_with("headers.X-Key: must be a string"), "{error}");

    let whole = sandbox.to_json_with_secrets().expect("serialises");
    let expected: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(whole, expected);
    let policy = sandbox.build_policy(&PolicyDefaults::default(), &Floor::default());
    let policy = policy.expect("a policy");
    let normal = serde_json::to_string(&policy.normalised()).expect("serialises");
    let rule = r#""a.example":[{"transform":{"headers":{"x-key":null}}}]"#;
    assert!(normal.contains(rule) && !normal.contains("hunter2"), "{normal}");
    assert!(!format!("{policy:?}").contains("hunter2"));
}

#[test]
fn an_update_without_rules_clears_them() {
    let network = |text: &str| parse_json::<NetworkConfig>(text.as_bytes()).expect("good");
    let rules = r#"{"rules":{"a.example":[{"transform":{"headers":{"X":"1"}}}]}}"#;
    assert_eq!(network(rules).replace_egress(&network("{}")), Ok(network("{}")));
    assert_eq!(network("{}").replace_egress(&network(rules)), Ok(network(rules)));
}
