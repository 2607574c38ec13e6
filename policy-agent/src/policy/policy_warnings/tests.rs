use super::super::{PolicyDefaults, parse_json};
use super::*;

fn warnings_of(network: &str, allow: &[&str]) -> Vec<String> {
    let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
    let floor = Floor::new(&allow, None).expect("a floor");
    let network: NetworkConfig = parse_json(network.as_bytes()).expect(network);
    let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor).expect("a policy");
    policy_warnings(&network, &policy, &floor).iter().map(ToString::to_string).collect()
}

/// The warnings about one entry of `allowOut` next to `example.com`.
fn warnings_of_entry(entry: &str) -> String {
    let network = format!(r#"{{"allowOut":["{entry}","example.com"],"denyOut":["0.0.0.0/0"]}}"#);
    warnings_of(&network, &[]).join("\n")
}

#[test]
fn entries_without_effect_are_told_why() {
    for (entry, problem) in [
        ("localhost", "the name of the sandbox's own loopback"),
        ("127.0.0.1", "inside the operator's platform_deny (127.0.0.0/8), and not in"),
        ("10.0.0.5", "inside the operator's platform_deny (10.0.0.0/8), and not in"),
        ("fd00::/8", "inside the operator's platform_deny (fc00::/7), and not in"),
        ("64:ff9b::a00:1", "inside the operator's platform_deny (10.0.0.0/8), and not in"),
        ("any", "read as a name; write * for any name, and 0.0.0.0/0"),
        ("AS15169", "read as a name; a policy knows no AS numbers"),
        ("intranet", "no public name has a single label"),
    ] {
        let said = warnings_of_entry(entry);
        let expected = format!("network.allowOut[0]: {entry:?}: {problem}");
        assert!(said.starts_with(&expected) && !said.contains('\n'), "{said}");
    }
}

#[test]
fn what_has_an_effect_is_met_with_silence() {
    for entry in
        ["1.1.1.1", "8.0.0.0/5", "0.0.0.0/0", "::/0", "*.org", "a.example.com", "as1.example"]
    {
        assert_eq!(warnings_of_entry(entry), "", "{entry}");
    }
    let denied = r#"{"denyOut":["10.0.0.0/8","0.0.0.0/0"]}"#;
    assert_eq!(warnings_of(denied, &[]), [""; 0]);
    assert_eq!(warnings_of("{}", &[]), [""; 0]);
}

#[test]
fn what_the_operator_opens_has_an_effect() {
    let private = r#"{"allowOut":["10.0.0.5","10.1.0.0/16"],"denyOut":["0.0.0.0/0"]}"#;
    assert_eq!(warnings_of(private, &["10.0.0.5", "10.1.2.3"]), [""; 0]);
    assert_eq!(warnings_of(private, &["10.0.0.6"]).len(), 2);
}

#[test]
fn a_name_that_a_wildcard_covers() {
    let network = r#"{"allowOut":["*.github.com","api.github.com","*.a.github.com","github.com",
        "1.1.1.1","github.com"],"denyOut":["0.0.0.0/0"]}"#;
    assert_eq!(
        warnings_of(network, &[]),
        [
            r#"network.allowOut[1]: "api.github.com": covered by allowOut[0] (*.github.com); remove one of them"#,
            r#"network.allowOut[2]: "*.a.github.com": covered by allowOut[0] (*.github.com); remove one of them"#,
            r#"network.allowOut[5]: "github.com": the same as allowOut[3]; remove it"#,
        ]
    );
    let any = r#"{"allowOut":["example.com","*"],"denyOut":["0.0.0.0/0"]}"#;
    assert!(warnings_of(any, &[])[0].contains("covered by allowOut[1] (*)"));
}

#[test]
fn allowing_where_nothing_is_denied() {
    let said = warnings_of(r#"{"allowOut":["1.1.1.1"]}"#, &[]);
    assert!(said[0].starts_with("network.allowOut: has no effect, since nothing"), "{said:?}");
    assert_eq!(warnings_of(r#"{"allowOut":["1.1.1.1"],"denyOut":["1.0.0.0/8"]}"#, &[]), [""; 0]);
    let closed = r#"{"allowOut":["1.1.1.1"],"allowInternetAccess":false}"#;
    assert_eq!(warnings_of(closed, &[]), [""; 0]);
}

#[test]
fn a_dns_server_that_cannot_be_asked() {
    let network = r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"],
        "dnsServers":["1.1.1.1","10.0.0.53"]}"#;
    let said = warnings_of(network, &[]);
    let expected = r#"network.dnsServers[1]: "10.0.0.53": inside the operator's platform_deny"#;
    assert!(said.len() == 1 && said[0].starts_with(expected), "{said:?}");
    assert_eq!(warnings_of(network, &["10.0.0.53"]), [""; 0]);
}

#[test]
fn of_many_the_first_are_shown() {
    let entries: Vec<_> =
        (0..100_000_u32).map(|n| format!("\"10.{}.{}.0/24\"", n >> 8 & 255, n & 255)).collect();
    let network = format!(r#"{{"allowOut":[{}],"denyOut":["0.0.0.0/0"]}}"#, entries.join(","));
    let said = warnings_of(&network, &[]);
    assert_eq!(said.len(), MAX_WARNINGS + 1);
    assert!(said[MAX_WARNINGS].contains("more such entries"), "{}", said[MAX_WARNINGS]);
    assert_eq!(warnings_of(&network, &["10.0.0.0/8"]), [""; 0]);
}

#[test]
fn a_rule_for_a_name_that_is_not_allowed_has_no_effect() {
    let warned = |allowed: &str, key: &str, headers: &str| {
        let network = format!(
            r#"{{"allowOut":["{allowed}"],"denyOut":["0.0.0.0/0"],
            "rules":{{"{key}":[{{"transform":{{"headers":{{{headers}}}}}}}]}}}}"#
        );
        warnings_of(&network, &[]).join("\n")
    };
    let header = r#""X-Key":"hunter2""#;
    for (allowed, key) in [
        ("a.example.com", "b.example.com"),
        ("example.com", "*.example.com"),
        ("*.example.com", "example.com"),
        ("*.a.example", "*.b.example"),
        ("203.0.113.7", "a.example.com"),
    ] {
        let said = warned(allowed, key, header);
        let expected = format!("network.rules: {key:?}: has no effect: a rule grants nothing");
        assert!(said.starts_with(&expected) && !said.contains("hunter2"), "{allowed}: {said}");
    }
    for (allowed, key) in [
        ("a.example.com", "A.example.com"),
        ("a.example.com", "*.example.com"),
        ("*.example.com", "a.example.com"),
        ("*.a.example.com", "*.example.com"),
        ("*.example.com", "*.a.example.com"),
        ("*", "a.example.com"),
    ] {
        assert_eq!(warned(allowed, key, header), "", "{allowed} {key}");
    }
    assert_eq!(warned("a.example.com", "b.example.com", ""), "");
}
