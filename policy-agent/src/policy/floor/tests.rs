use super::super::MAX_LIST_ENTRIES;
use super::*;

fn owned_strings(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn the_default_list_is_read_whole() {
    let floor = Floor::default();
    assert_eq!(floor.deny.len(), DEFAULT_PLATFORM_DENY.len());
    assert_eq!(Floor::new(&[], None), Ok(floor));
    assert_eq!(
        Floor::new(&[], Some(&owned_strings(&DEFAULT_PLATFORM_DENY.map(|(entry, _)| entry)))),
        Floor::new(&[], None),
        "the list can be written out"
    );
}

#[test]
fn the_documentation_lists_the_default_with_reasons() {
    let page = include_str!("../../../../docs/policy.md");
    for (entry, why) in DEFAULT_PLATFORM_DENY {
        assert!(page.contains(&format!("| `{entry}` | {why} |\n")), "{entry}");
    }
}

#[test]
fn the_default_floor() {
    let floor = Floor::default();
    for (address, admitted) in [
        ("8.8.8.8", true),
        ("2001:4860:4860::8888", true),
        ("0.0.0.0", false),
        ("10.255.255.255", false),
        ("11.0.0.0", true),
        ("100.63.255.255", true),
        ("100.64.0.0", false),
        ("127.0.0.1", false),
        ("168.63.129.15", true),
        ("168.63.129.16", false),
        ("168.63.129.17", true),
        ("169.254.169.254", false),
        ("172.15.255.255", true),
        ("172.31.255.255", false),
        ("172.32.0.0", true),
        ("192.0.0.1", false),
        ("192.0.1.1", true),
        ("192.88.98.255", true),
        ("192.88.99.1", false),
        ("198.19.0.1", false),
        ("224.0.0.1", false),
        ("255.255.255.255", false),
        ("::", false),
        ("::1", false),
        ("64:ff9b:1::1", false),
        ("64:ff9b:2::1", true),
        ("5eff::1", true),
        ("5f00::1", false),
        ("5f01::1", true),
        ("fd00::1", false),
        ("fe80::1", false),
        ("fec0::1", false),
        ("ff02::1", false),
        ("::ffff:10.0.0.1", false),
        ("::ffff:8.8.8.8", true),
        ("::10.0.0.1", false),
        ("64:ff9b::a9fe:a9fe", false),
        ("64:ff9b::808:808", true),
        ("64:ff9b::a83f:8110", false), // 168.63.129.16
        ("2002:c058:6301::1", false),  // 192.88.99.1
        ("2002:a00:1::1", false),
        ("2002:808:808::1", true),
        ("2001:0:a00:1::", false),            // Teredo server 10.0.0.1
        ("2001:0:808:808::f5ff:fffe", false), // Teredo client 10.0.0.1
        ("2001:0:808:808::f7f7:f7f7", true),  // Teredo client 8.8.8.8
    ] {
        assert_eq!(floor.admits(address.parse().expect(address)), admitted, "{address}");
    }
}

#[test]
fn platform_allow_wins_over_platform_deny() {
    let allow = owned_strings(&["10.0.0.53", "64:ff9b::a00:36"]);
    let floor = Floor::new(&allow, None).expect("good");
    for (address, admitted) in [
        ("10.0.0.53", true),
        ("10.0.0.54", false),
        ("64:ff9b::a00:35", false), // only its IPv4 form is in `platform_allow`
        ("64:ff9b::a00:36", true),  // its IPv6 form is in `platform_allow`
        ("2001:0:808:808::f5ff:ffca", true), // Teredo client 10.0.0.53
        ("2001:0:808:808::f5ff:ffc9", false), // Teredo client 10.0.0.54
    ] {
        assert_eq!(floor.admits(address.parse().expect(address)), admitted, "{address}");
    }
}

#[test]
fn what_is_added_is_denied_beside_the_rest() {
    let added = owned_strings(&["203.0.113.0/24", "2001:db8::/32"]);
    let allow = owned_strings(&["203.0.113.7"]);
    for deny in [None, Some(owned_strings(&["9.9.9.9"]))] {
        let floor = Floor::new(&allow, deny.as_deref()).expect("good");
        let before = Arc::clone(&floor.deny);
        let floor = floor.with_deny_add(&added).expect("good");
        assert_eq!(floor.deny, before);
        for (address, admitted) in [
            ("203.0.113.1", false),
            ("203.0.113.7", true),
            ("203.0.114.1", true),
            ("2001:db8::1", false),
            ("64:ff9b::203.0.113.1", false),
            ("2002:cb00:7101::1", false),
            ("10.0.0.1", deny.is_some()),
            ("9.9.9.9", deny.is_none()),
        ] {
            assert_eq!(floor.admits(address.parse().expect(address)), admitted, "{address}");
        }
    }
    let error = Floor::default().with_deny_add(&owned_strings(&["10.0.0.0/8", "10.0.0.0/99"]));
    let error = error.expect_err("a bad length").to_string();
    assert!(error.starts_with("dataplane.platform_deny_add[1]: \"10.0.0.0/99\": "), "{error}");
}

#[test]
fn the_hosts_own_addresses_are_denied_unless_they_are_allowed() {
    let nets =
        |list: &[&str]| -> Vec<IpNet> { list.iter().map(|net| net.parse().expect(net)).collect() };
    let allow = owned_strings(&["192.0.2.2", "2001:db8::2"]);
    let floor = Floor::new(&allow, None).expect("good");
    let host = ["192.0.2.1/32", "192.0.2.2/32", "198.51.100.0/24", "2001:db8::1/128"];
    let floor = floor.with_host_addresses(&nets(&host));
    for (address, admitted) in [
        ("192.0.2.1", false),
        ("192.0.2.2", true),
        ("192.0.2.3", true),
        ("198.51.100.77", false),
        ("2001:db8::1", false),
        ("2001:db8::2", true),
        ("2001:db8::3", true),
        ("64:ff9b::192.0.2.1", false),
        ("64:ff9b::192.0.2.2", false), // `platform_allow` does not look inside
        ("2002:c000:201::1", false),
        ("2001:0:808:808::3fff:fdfe", false), // Teredo client 192.0.2.1
        ("2001:0:808:808::3fff:fdfd", true),  // Teredo client 192.0.2.2
    ] {
        let address = address.parse().expect(address);
        assert_eq!(floor.admits(address), admitted, "{address}");
        assert_eq!(floor.is_denied_host_address(address), !admitted, "{address}");
    }
    assert!(!floor.is_denied_host_address([10, 0, 0, 1].into()), "denied by a list");
    assert_eq!(
        floor.with_host_addresses(&[]).host_addresses,
        Arc::default(),
        "other addresses replace them"
    );
    let unknown = floor.with_unknown_host_addresses();
    for (address, admitted) in [("8.8.8.8", false), ("192.0.2.2", true), ("2600::", false)] {
        assert_eq!(unknown.admits(address.parse().expect(address)), admitted, "{address}");
    }
}

#[test]
fn errors_name_the_key() {
    let error = Floor::new(&[], Some(&owned_strings(&["10.0.0.0/8", "10.0.0.0/99"])));
    let error = error.expect_err("a bad length").to_string();
    assert!(error.starts_with("dataplane.platform_deny[1]: \"10.0.0.0/99\": "), "{error}");
    let many = vec!["10.0.0.1".to_owned(); MAX_LIST_ENTRIES + 1];
    let error = Floor::new(&many, None).expect_err("too many").to_string();
    assert!(error.contains("100001 entries; the limit is 100000"), "{error}");
}
