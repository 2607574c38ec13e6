use std::time::Instant;

use super::super::{NetworkConfig, PolicyDefaults, resolve_rule};
use super::*;

fn owned_strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn compile_lists(allow: &[&str], deny: &[&str], floor: (&[&str], &[&str])) -> CompiledPolicy {
    let floor =
        Floor::new(&owned_strings(floor.0), Some(&owned_strings(floor.1))).expect("a floor");
    let network = NetworkConfig {
        allow_out: Some(owned_strings(allow)),
        deny_out: Some(owned_strings(deny)),
        ..NetworkConfig::default()
    };
    let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor).expect("a policy");
    compile_policy(&policy, &floor)
}

/// One line per entry: prefix, reason, rule.
fn entry_lines<N: ToString>(table: &[(N, Verdict)]) -> Vec<String> {
    let line = |(net, verdict): &(N, Verdict)| {
        let reason = Reason::from_code(verdict.reason_code).map_or("?", Reason::label);
        match verdict.rule_index {
            NO_RULE => format!("{} {reason}", net.to_string()),
            rule => format!("{} {reason} {rule}", net.to_string()),
        }
    };
    table.iter().map(line).collect()
}

#[test]
fn an_empty_policy_holds_both_defaults() {
    let table = compile_lists(&[], &[], (&[], &[]));
    assert_eq!(entry_lines(&table.ipv4_entries), ["0.0.0.0/0 no_rule"]);
    assert_eq!(entry_lines(&table.ipv6_entries), ["::/0 no_rule"]);
}

#[test]
fn what_a_higher_rank_covers_is_left_out() {
    let table = compile_lists(
        &["10.1.0.0/16", "10.1.2.0/24", "10.1.0.1/16"],
        &["10.0.0.0/8", "10.1.2.3", "0.0.0.0/0", "10.2.0.0/16", "10.0.0.0/8"],
        (&["10.1.0.53"], &["10.1.0.0/24"]),
    );
    assert_eq!(
        entry_lines(&table.ipv4_entries),
        [
            "0.0.0.0/0 deny_out 2",
            "10.0.0.0/8 deny_out 0",
            "10.1.0.0/16 allow_out 0",
            "10.1.0.0/24 platform_deny 0",
            "10.1.0.53/32 platform_allow 0",
            "10.1.2.0/24 allow_out 1",
            "10.2.0.0/16 deny_out 3",
        ]
    );
}

#[test]
fn all_traffic_is_both_families() {
    for (allow, deny, on_v4, on_v6) in [
        (&[][..], &["0.0.0.0/0"][..], "0.0.0.0/0 deny_out 0", "::/0 deny_out 0"),
        (&[], &["::/0"], "0.0.0.0/0 no_rule", "::/0 deny_out 0"),
        (&["0.0.0.0/0"], &["0.0.0.0/0"], "0.0.0.0/0 allow_out 0", "::/0 allow_out 0"),
        (&["::/0"], &["0.0.0.0/0"], "0.0.0.0/0 deny_out 0", "::/0 allow_out 0"),
    ] {
        let table = compile_lists(allow, deny, (&[], &[]));
        assert_eq!(entry_lines(&table.ipv4_entries), [on_v4], "allow {allow:?}, deny {deny:?}");
        assert_eq!(entry_lines(&table.ipv6_entries), [on_v6], "allow {allow:?}, deny {deny:?}");
    }
    let table = compile_lists(&["1.1.1.1", "2001:db8::/32"], &[], (&[], &["0.0.0.0/0"]));
    assert_eq!(entry_lines(&table.ipv4_entries), ["0.0.0.0/0 platform_deny 0"]);
    assert_eq!(entry_lines(&table.ipv6_entries)[0], "::/0 platform_deny 0");
    assert!(
        table
            .ipv6_entries
            .iter()
            .all(|(_, verdict)| verdict.reason_code == Reason::PlatformDeny as u8)
    );
}

#[test]
fn the_floor_is_embedded_in_ipv6() {
    let table = compile_lists(&[], &[], (&["2002:a00:1::/48"], &["10.0.0.0/8"]));
    assert_eq!(
        entry_lines(&table.ipv6_entries),
        [
            "::/0 no_rule",
            "::a00:0/104 platform_deny 0",
            "::ffff:10.0.0.0/104 platform_deny 0",
            "64:ff9b::a00:0/104 platform_deny 0",
            "2001:0:a00::/40 platform_deny 0",
            "2002:a00::/24 platform_deny 0",
            "2002:a00:1::/48 platform_allow 0",
        ]
    );
}

#[test]
fn the_hosts_own_addresses_are_denied_behind_the_lists() {
    let strings = owned_strings(&["192.0.2.9", "10.0.0.0/8", "198.51.100.0/24"]);
    let (allow, rest) = strings.split_at(1);
    let (deny, added) = rest.split_at(1);
    let floor = Floor::new(allow, Some(deny)).and_then(|floor| floor.with_deny_add(added));
    let nets = ["192.0.2.0/28", "10.11.0.1/32", "198.51.100.7/32", "203.0.113.1/32"];
    let host = nets.map(|net| net.parse::<IpNet>().expect(net));
    let floor = floor.expect("a floor").with_host_addresses(&host);
    let of = |network: &str| {
        let network: NetworkConfig = super::super::parse_json(network.as_bytes()).expect(network);
        let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor);
        let policy = policy.expect("a policy");
        (compile_policy(&policy, &floor), policy)
    };
    let (table, policy) = of(r#"{"allowOut":["203.0.113.0/24","192.0.2.1"]}"#);
    assert_eq!(
        entry_lines(&table.ipv4_entries),
        [
            "0.0.0.0/0 no_rule",
            "10.0.0.0/8 platform_deny 0",
            "192.0.2.0/28 platform_deny 2",
            "192.0.2.9/32 platform_allow 0",
            "198.51.100.0/24 platform_deny 1",
            "203.0.113.0/24 allow_out 0",
            "203.0.113.1/32 platform_deny 3",
        ]
    );
    let named = |index| resolve_rule(&policy, &floor, Reason::PlatformDeny, index);
    let names = [0, 1, 2, 3].map(|index| named(index).expect("a rule").to_string());
    assert_eq!(
        names,
        [
            "platform_deny[0]: 10.0.0.0/8",
            "platform_deny_add[0]: 198.51.100.0/24",
            "host_address: 192.0.2.0/28",
            "host_address: 203.0.113.1/32",
        ]
    );
    assert_eq!(named(4), None);
    assert!(table.ipv4_entries.iter().all(|(_, verdict)| verdict.flags == 0));
    // Traffic to the gateway must reach the proxy.
    let (table, _) = of(r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"]}"#);
    for (net, verdict) in &table.ipv4_entries {
        let host = verdict.reason_code == Reason::PlatformDeny as u8 && verdict.rule_index >= 2;
        let denied = verdict.reason_code == Reason::DenyOut as u8;
        assert_eq!(verdict.flags == VERDICT_REDIRECT_WEB, host || denied, "{net}");
    }
}

#[test]
fn digests_differ_as_tables_do() {
    let table = compile_lists(&["1.1.1.1"], &["0.0.0.0/0"], (&[], &[]));
    let same = compile_lists(&["1.1.1.1/32"], &["0.0.0.0/0"], (&[], &[]));
    assert_eq!(table.digest(), same.digest());
    // Also stable across versions, because digests of pinned tables are compared with it.
    assert_eq!(
        table.digest().map(|byte| format!("{byte:02x}")).concat(),
        "8ac08a81732504aac6ea2622b16034f8"
    );
    let mut digests = vec![table.digest()];
    for (allow, deny) in [
        (&["1.1.1.2"][..], &["0.0.0.0/0"][..]),
        (&["1.1.1.0/31"], &["0.0.0.0/0"]),
        (&["2.2.2.2", "1.1.1.1"], &["0.0.0.0/0"]),
        (&["8.8.8.8", "1.1.1.1"], &["0.0.0.0/0"]),
        (&["1.1.1.1"], &["::/0"]),
        (&["1.1.1.1", "example.com"], &["0.0.0.0/0"]),
        (&[], &["1.1.1.1"]),
        (&[], &["::101:101"]),
        (&[], &[]),
    ] {
        digests.push(compile_lists(allow, deny, (&[], &[])).digest());
    }
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

/// Asserts no limit. `cargo test --release -- --nocapture how_long` prints the times.
#[test]
fn how_long_it_takes() {
    for entries in [1_000_u32, 50_000, 100_000] {
        // Scattered and nested prefixes, unsorted.
        let scattered = (0..entries).map(|n| n.wrapping_mul(2_654_435_761) | 0x0100_0000);
        let list: Vec<_> = scattered
            .enumerate()
            .map(|(n, bits)| match n % 4 {
                0 => format!("2001:db8:{:x}:{:x}::/64", bits >> 16, bits & 0xffff),
                1 => format!("{}/20", std::net::Ipv4Addr::from_bits(bits)),
                _ => std::net::Ipv4Addr::from_bits(bits).to_string(),
            })
            .collect();
        // Half of the prefixes in each list.
        let (deny, allow) = list.split_at(list.len() / 2);
        let network = NetworkConfig {
            allow_out: Some(allow.to_vec()),
            deny_out: Some(deny.to_vec()),
            ..NetworkConfig::default()
        };
        let floor = Floor::default();
        let start = Instant::now();
        let policy = Policy::new(&network, None, &PolicyDefaults::default(), &floor);
        let policy = policy.expect("a policy");
        let validated = start.elapsed();
        let table = compile_policy(&policy, &floor);
        let compiled = start.elapsed() - validated;
        let digest = table.digest();
        let digested = start.elapsed() - compiled - validated;
        assert_ne!(digest, [0; 16]);
        eprintln!(
            "{entries} entries: validate {validated:?}, compile {compiled:?} to {} + {}, \
             digest {digested:?}",
            table.ipv4_entries.len(),
            table.ipv6_entries.len()
        );
    }
}
