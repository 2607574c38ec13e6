use super::super::{NormalisedPolicy, parse_json};
use super::*;

/// Parses the policy of a sandbox with this `network`.
fn parse_policy(network: &str) -> Result<Policy, ValidationError> {
    let network: NetworkConfig = parse_json(network.as_bytes())?;
    Policy::new(&network, None, &PolicyDefaults::default(), &Floor::default())
}

#[test]
fn absent_and_empty_lists_are_the_same() {
    let empty = parse_policy(r#"{"allowOut":[],"denyOut":[],"dnsServers":[],"httpsPorts":[]}"#);
    assert_eq!(empty, parse_policy("{}"));
    let empty = empty.expect("good");
    assert!(empty.allows_internet() && empty.allow_public_traffic() && !empty.has_domains());
    assert_eq!(empty.nameservers(), [] as [IpAddr; 0]);
}

#[test]
fn what_is_refused() {
    for (network, expected) in [
        (
            r#"{"allowOut":["1.1.1.1","Example.com"]}"#,
            r#"network.allowOut[1]: "example.com": a domain can be allowed only when all other"#,
        ),
        (r#"{"allowOut":["*"],"denyOut":["::/0"]}"#, r#"network.allowOut[0]: "*": a domain can"#),
        (
            r#"{"denyOut":["1.1.1.1","example.com"]}"#,
            r#"network.denyOut[1]: "example.com": a domain cannot be denied"#,
        ),
        (r#"{"denyOut":["*"]}"#, r#"network.denyOut[0]: "*": a domain cannot be denied"#),
        (
            r#"{"denyOut":["exa mple.com"]}"#,
            r#"network.denyOut[0]: "exa mple.com": remove the white space"#,
        ),
        (r#"{"denyOut":["0.0.0.0"]}"#, r#"network.denyOut[0]: "0.0.0.0": covers the unspec"#),
        (r#"{"denyOut":[""]}"#, r#"network.denyOut[0]: "": empty; remove it"#),
        (r#"{"denyOut":["ALL_TRAFFIC"]}"#, r#"network.denyOut[0]: "ALL_TRAFFIC": write 0.0.0.0/0"#),
        (r#"{"allowOut":[""]}"#, r#"network.allowOut[0]: "": empty; remove it"#),
        (r#"{"allowOut":["1.2.3"]}"#, r#"network.allowOut[0]: "1.2.3": not an IP address"#),
        (r#"{"allowOut":["999.1.1.1"]}"#, r#"network.allowOut[0]: "999.1.1.1": not an IP"#),
        (
            r#"{"allowOut":["https://example.com/"]}"#,
            r#"network.allowOut[0]: "https://example.com/": write example.com alone"#,
        ),
        (
            r#"{"allowOut":["a.example:443"]}"#,
            r#"network.allowOut[0]: "a.example:443": write a.example alone; a name holds on"#,
        ),
        (r#"{"allowOut":["*.1.2.3.4"]}"#, r#"network.allowOut[0]: "*.1.2.3.4": a name cannot end"#),
        (r#"{"dnsServers":["1.1.1.1"]}"#, "network.dnsServers: allowed only when allowOut holds"),
        (
            r#"{"allowOut":["1.1.1.1"],"dnsServers":["1.1.1.1"]}"#,
            "network.dnsServers: allowed only when allowOut holds",
        ),
        (r#"{"egressProxy":{"address":"10.0.0.1:1"}}"#, "network.egressProxy.address: \"10.0"),
        (r#"{"allowPublicFrom":[]}"#, "network.allowPublicFrom: names no network"),
        (
            r#"{"allowPublicFrom":["192.0.2.1","a.example"]}"#,
            "network.allowPublicFrom[1]: \"a.example\": clients are told by",
        ),
        (r#"{"maskRequestHost":"a b"}"#, "network.maskRequestHost: \"a b\": "),
    ] {
        let error = parse_policy(network).expect_err(network).to_string();
        assert!(error.starts_with(expected), "{network}: {error}");
    }
}

#[test]
fn domains_need_everything_else_denied() {
    let domain = r#""allowOut":["example.com"]"#;
    for deny in [r#""denyOut":["0.0.0.0/0"]"#, r#""allowInternetAccess":false"#] {
        assert!(parse_policy(&format!("{{{domain},{deny}}}")).expect(deny).has_domains());
    }
    let network = parse_json(format!("{{{domain}}}").as_bytes()).expect("JSON");
    let policy = |internet| {
        Policy::new(&network, internet, &PolicyDefaults::default(), &Floor::default()).is_ok()
    };
    assert!(policy(Some(false)));
    assert!(!policy(Some(true)) && !policy(None));
}

#[test]
fn internet_access_is_given_once() {
    for (beside, inside, expected) in [
        (None, None, Some(true)),
        (Some(true), None, Some(true)),
        (Some(false), None, Some(false)),
        (None, Some(false), Some(false)),
        (Some(false), Some(false), Some(false)),
        (Some(true), Some(false), None),
        (Some(false), Some(true), None),
    ] {
        let network = NetworkConfig { allow_internet_access: inside, ..Default::default() };
        let policy = Policy::new(&network, beside, &PolicyDefaults::default(), &Floor::default());
        let read = policy.ok().map(|policy| policy.allows_internet());
        assert_eq!(read, expected, "{beside:?}, {inside:?}");
    }
}

#[test]
fn nameservers() {
    let with = |servers: &str| {
        parse_policy(&format!(
            r#"{{"allowOut":["*.example.com"],"denyOut":["0.0.0.0/0"]{servers}}}"#
        ))
    };
    let google = [IpAddr::from([8, 8, 8, 8])];
    let default = with("").expect("good");
    assert_eq!((default.nameservers(), default.uses_default_nameserver()), (&google[..], true));
    let none = with(r#","dnsServers":[]"#).expect("good");
    assert_eq!((none.nameservers(), none.uses_default_nameserver()), (&[][..], false));
    let given = with(r#","dnsServers":["::ffff:8.8.8.8","2001:db8::1"]"#).expect("good");
    assert_eq!(given.nameservers()[0], google[0]);
    assert!(!given.uses_default_nameserver());

    let ten = [r#""1.1.1.1""#; 10].join(",");
    assert!(with(&format!(r#","dnsServers":[{ten}]"#)).is_ok());
    for (servers, expected) in [
        (format!(r#"[{ten},"1.1.1.1"]"#), "network.dnsServers: has 11 entries; the limit is 10"),
        (
            r#"["1.1.1.1","1.1.1.0/24"]"#.to_owned(),
            r#"network.dnsServers[1]: "1.1.1.0/24": write a"#,
        ),
        (
            r#"["dns.example"]"#.to_owned(),
            r#"network.dnsServers[0]: "dns.example": write the DNS server's IP address"#,
        ),
        (
            r#"["1.1.1.1:53"]"#.to_owned(),
            r#"network.dnsServers[0]: "1.1.1.1:53": write 1.1.1.1 alone"#,
        ),
        (r#"["0.0.0.0"]"#.to_owned(), r#"network.dnsServers[0]: "0.0.0.0": covers"#),
    ] {
        let error = with(&format!(r#","dnsServers":{servers}"#)).expect_err(&servers);
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn lists_have_a_limit_that_the_error_names() {
    let list = |entries| Some(vec!["1.1.1.1".to_owned(); entries]);
    for (field, config) in [
        ("network.allowOut", NetworkConfig { allow_out: list(100_001), ..Default::default() }),
        ("network.denyOut", NetworkConfig { deny_out: list(100_001), ..Default::default() }),
    ] {
        let policy = Policy::new(&config, None, &PolicyDefaults::default(), &Floor::default());
        let error = policy.expect_err(field).to_string();
        assert_eq!(error, format!("{field}: has 100001 entries; the limit is 100000"));
    }
    let most = NetworkConfig { deny_out: list(100_000), ..Default::default() };
    assert!(Policy::new(&most, None, &PolicyDefaults::default(), &Floor::default()).is_ok());
}

#[test]
fn the_normal_form_reads_as_the_same_policy() {
    for network in [
        "{}",
        r#"{"allowOut":["10.0.0.1/8","::FFFF:1.1.1.1","Bücher.example.","*.A.b","*"],
            "denyOut":["0.0.0.0/0","2001:db8::1/32","0.0.0.0/0"],"dnsServers":[]}"#,
        r#"{"allowOut":["a.example"],"allowInternetAccess":false}"#,
        r#"{"allowOut":["a.example"],"denyOut":["0.0.0.0/0"],"dnsServers":["::1"]}"#,
        r#"{"egressProxy":{"address":"[2001:4860::1]:1080","username":"me","tls":true},
            "httpsPorts":[9,443,9],"maskRequestHost":"h:${PORT}","allowPublicTraffic":false}"#,
        r#"{"allowPublicFrom":["192.0.2.1/24","::ffff:198.51.100.1","2001:db8::/32"]}"#,
        r#"{"egressProxy":{"address":"p.example:1080",
            "tls":{"serverName":"[2001:4860::1]","ca":"-----BEGIN CERTIFICATE-----"}},
            "httpsPorts":[9,443,9],"maskRequestHost":"h:${PORT}","allowPublicTraffic":false}"#,
    ] {
        let config: NetworkConfig = parse_json(network.as_bytes()).expect(network);
        let policy = Policy::new(&config, None, &PolicyDefaults::default(), &Floor::default());
        let policy = policy.expect(network);
        let NormalisedPolicy { allow_internet_access, network } = policy.normalised();
        let text = serde_json::to_vec(&network).expect("serialises");
        let again = Policy::new(
            &parse_json(&text).expect("JSON"),
            Some(allow_internet_access),
            &PolicyDefaults::default(),
            &Floor::default(),
        );
        assert_eq!(again, Ok(policy));
    }
}

#[test]
fn the_normal_form_is_canonical_and_holds_no_secret() {
    let policy = parse_policy(
        r#"{"allow_out":["10.0.0.1/8","Bücher.example."],"deny_out":["0.0.0.0/0"],
        "https_ports":[443,80],
        "egress_proxy":{"address":"P.example:1080","username":"me","password":"hunter2"}}"#,
    );
    let text = serde_json::to_string(&policy.expect("good").normalised()).expect("serialises");
    assert_eq!(
        text,
        r#"{"allowInternetAccess":true,"network":{"#.to_owned()
            + r#""allowOut":["10.0.0.0/8","xn--bcher-kva.example"],"denyOut":["0.0.0.0/0"],"#
            + r#""egressProxy":{"address":"p.example:1080","username":"me","tls":false},"#
            + r#""allowPublicTraffic":true,"httpsPorts":[80,443]}}"#
    );
}

#[test]
fn clients_are_admitted_by_their_networks() {
    let admits = |list: &str, client: &str| {
        let policy = parse_policy(&format!(r#"{{"allowPublicFrom":{list}}}"#)).expect(list);
        policy.admits_client(client.parse().expect("an address"))
    };
    assert!(admits("null", "203.0.113.9") && admits("null", "2001:db8::1"));
    let list = r#"["192.0.2.0/24","2001:db8:1::/48"]"#;
    for (client, expected) in [
        ("192.0.2.255", true),
        ("::ffff:192.0.2.1", true),
        ("192.0.3.1", false),
        ("2001:db8:1::7", true),
        ("2001:db8:2::7", false),
    ] {
        assert_eq!(admits(list, client), expected, "{client}");
    }
    assert!(admits(r#"["0.0.0.0/0"]"#, "2001:db8::1"));
    assert!(!admits(r#"["::/0"]"#, "192.0.2.1"));
}
