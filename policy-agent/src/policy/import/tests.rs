use super::*;

#[track_caller]
fn import(format: ImportFormat, text: &str) -> ImportedPolicy {
    ImportedPolicy::read(format, text, &[]).expect("it has the format")
}

#[track_caller]
fn assert_notes(policy: &ImportedPolicy, expected: &[&str]) {
    assert_eq!(policy.notes.len(), expected.len(), "{:#?}", policy.notes);
    for (note, part) in policy.notes.iter().zip(expected) {
        assert!(note.contains(part), "{note}");
    }
}

#[test]
fn a_runners_list_of_hosts_and_ports() {
    let list = "# CI\ngithub.com:443\n*.actions.githubusercontent.com\nhttps://pypi.org/simple, \
                192.0.2.0/24\n198.51.100.7:22\ngithub.com:22\n.example.com\nnot a host!\n";
    let policy = import(ImportFormat::HostList, list);
    let expected = [
        "github.com",
        "*.actions.githubusercontent.com",
        "pypi.org",
        "192.0.2.0/24",
        "198.51.100.7",
        "*.example.com",
        "example.com",
    ];
    assert_eq!(policy.allow_out, expected);
    assert_eq!(policy.deny_out, ["0.0.0.0/0"]);
    assert_notes(
        &policy,
        &[
            "github.com:22 is not carried over",
            "not is not",
            "a is not",
            "host! is",
            "ports are not",
        ],
    );
}

#[test]
fn no_proxy_stands_for_subdomains_too() {
    let policy = import(
        ImportFormat::NoProxy,
        "NO_PROXY=localhost,127.0.0.1,example.com,.internal.example,10.0.0.0/8\n",
    );
    let expected = ["example.com", "*.example.com", "*.internal.example", "10.0.0.0/8"];
    assert_eq!(policy.allow_out, expected);
    assert_notes(&policy, &["localhost is not carried over", "127.0.0.1 is not carried over"]);
}

#[test]
fn settings_of_srt() {
    let settings = r#"{"network": {"allowedDomains": ["github.com", "*.github.com", "pypi.org"],
        "deniedDomains": ["gist.github.com", "evil.example"], "allowLocalBinding": true},
        "filesystem": {"denyRead": ["~/.ssh"]}}"#;
    let policy = import(ImportFormat::Srt, settings);
    assert_eq!(policy.allow_out, ["github.com", "*.github.com", "pypi.org"]);
    assert_notes(&policy, &["network.allowLocalBinding", "gist.github.com is not carried over"]);
    let nested = r#"{"sandbox": {"network": {"allowedDomains": ["github.com"]}}}"#;
    assert_eq!(import(ImportFormat::Srt, nested).allow_out, ["github.com"]);
    for wrong in ["", "[]", "{}", r#"{"network": {"allowedDomains": [1]}}"#] {
        assert!(ImportedPolicy::read(ImportFormat::Srt, wrong, &[]).is_err(), "{wrong}");
    }
}

#[test]
fn options_of_docker() {
    let script = "docker sandbox network proxy web \\\n --policy deny --allow-host '*.npmjs.org' \
                  --allow-host=api.example.com:443 --allow-host localhost:3000";
    let policy = import(ImportFormat::Docker, script);
    assert_eq!(policy.allow_out, ["*.npmjs.org", "api.example.com"]);
    assert_eq!(policy.deny_out, ["0.0.0.0/0"]);
    assert_notes(&policy, &["localhost:3000 is not carried over", "ports are not"]);
    let script =
        "docker sandbox network proxy web --block-host evil.example --block-cidr 192.0.2.0/24";
    let policy = import(ImportFormat::Docker, script);
    assert_eq!((policy.allow_out.len(), policy.deny_out), (0, vec!["192.0.2.0/24".to_owned()]));
    for wrong in ["docker ps", "--policy", "--policy maybe", "--allow-hosts a", "--policy 'deny"] {
        assert!(ImportedPolicy::read(ImportFormat::Docker, wrong, &[]).is_err(), "{wrong}");
    }
}

#[test]
fn sets_of_nftables() {
    let ruleset = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
        {"set": {"name": "allowed", "type": "ipv4_addr", "elem": ["192.0.2.1",
            {"prefix": {"addr": "198.51.100.0", "len": 25}}, {"range": ["203.0.113.0", "203.0.113.2"]},
            {"elem": {"val": "192.0.2.9", "timeout": 60}}]}},
        {"set": {"name": "blocked", "type": "ipv6_addr", "elem": ["2001:db8::1"]}},
        {"set": {"name": "ports", "type": "inet_service", "elem": [80]}},
        {"rule": {"expr": []}}]}"#;
    let policy =
        ImportedPolicy::read(ImportFormat::Nft, ruleset, &["blocked".to_owned()]).expect("sets");
    let expected = ["192.0.2.1", "198.51.100.0/25", "203.0.113.0/31", "203.0.113.2", "192.0.2.9"];
    assert_eq!(policy.allow_out, expected);
    assert_notes(&policy, &["set ports", "1 rules"]);
    let only_denied = r#"{"nftables": [{"set": {"name": "blocked", "type": "ipv4_addr",
        "elem": ["192.0.2.1"]}}]}"#;
    let policy = ImportedPolicy::read(ImportFormat::Nft, only_denied, &["blocked".to_owned()]);
    assert_eq!(policy.expect("a set").deny_out, ["192.0.2.1"]);
    let unknown = ImportedPolicy::read(ImportFormat::Nft, ruleset, &["bad".to_owned()]);
    assert_eq!(unknown.unwrap_err(), "has no set bad; its sets are: allowed, blocked, ports");
    let text = "table inet filter { }";
    let wrong = ImportedPolicy::read(ImportFormat::Nft, text, &[]).unwrap_err();
    assert!(wrong.contains("nft -j list ruleset"), "{wrong}");
}
