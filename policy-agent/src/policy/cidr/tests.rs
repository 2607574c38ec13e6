use super::*;

fn sandbox_cidr(entry: &str) -> Result<IpNet, String> {
    parse_sandbox_cidr(entry, entry_hints::ADDRESSES_ONLY_HINT)
}

#[test]
fn entries_are_normalised() {
    for (entry, normal) in [
        ("10.0.0.1", "10.0.0.1/32"),
        ("10.0.0.1/8", "10.0.0.0/8"),
        ("10.0.0.1/32", "10.0.0.1/32"),
        ("255.255.255.255", "255.255.255.255/32"),
        ("255.255.255.255/1", "128.0.0.0/1"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("0.0.0.1", "0.0.0.1/32"),
        ("::/0", "::/0"),
        ("0:0:0:0:0:0:0:0/0", "::/0"),
        ("::1", "::1/128"),
        ("2001:DB8::1/32", "2001:db8::/32"),
        ("2001:db8:0:0::1", "2001:db8::1/128"),
        ("::10.0.0.1", "::a00:1/128"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ("::ffff:a00:1", "10.0.0.1/32"),
        ("::ffff:10.0.0.1/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1/128", "10.0.0.1/32"),
        ("::ffff:128.0.0.1/97", "128.0.0.0/1"),
    ] {
        let net = sandbox_cidr(entry).unwrap_or_else(|error| panic!("{entry}: {error}"));
        assert_eq!(net.to_string(), normal, "{entry}");
        // The output of `check` is an entry with the same meaning.
        assert_eq!(sandbox_cidr(normal), Ok(net), "{normal}");
    }
}

#[test]
fn errors_say_what_to_do() {
    for (entry, advice) in [
        ("", "remove it"),
        (" 10.0.0.1", "white space"),
        ("10.0.0.1\n", "white space"),
        ("10.0.0.0 /8", "white space"),
        ("10.0.0.1\0", "control character"),
        ("http://10.0.0.1", "write 10.0.0.1 alone"),
        ("fe80::1%eth0", "zone"),
        ("[::1]", "write ::1 alone"),
        ("[::1]:443", "write ::1 alone"),
        ("10.0.0.1:80", "write 10.0.0.1 alone"),
        ("010.0.0.1", "leading zeros"),
        ("10.0.0.01/8", "leading zeros"),
        ("10.0.0.1-10.0.0.9", "a range; write CIDRs instead: 10.0.0.1/32, 10.0.0.2/31"),
        ("1.2.3", "not an IP address"),
        ("1", "not an IP address"),
        ("999.1.1.1", "not an IP address"),
        ("1.2.3.4.5", "not an IP address"),
        ("1.2.3.4.", "not an IP address"),
        ("::1::", "not an IP address"),
        ("١.2.3.4/8", "not an IP address"),
        ("ALL_TRAFFIC", "0.0.0.0/0"),
        ("all_traffic", "0.0.0.0/0"),
        ("example.com/24", "only IP addresses and CIDRs"),
        ("example.com:443", "only IP addresses and CIDRs"),
        ("10.0.0.0/", "from 0 to 32"),
        ("10.0.0.0/33", "from 0 to 32"),
        ("10.0.0.0/+8", "from 0 to 32"),
        ("10.0.0.0/08", "from 0 to 32"),
        ("10.0.0.0/-1", "from 0 to 32"),
        ("10.0.0.0/8/8", "from 0 to 32"),
        ("10.0.0.0/256", "from 0 to 32"),
        ("::/129", "from 0 to 128"),
        ("10.0.0.0/255.0.0.0", "netmask"),
        ("0.0.0.0", "unspecified"),
        ("0.0.0.0/8", "unspecified"),
        ("0.0.0.0/1", "unspecified"),
        ("0.0.0.0/32", "unspecified"),
        ("10.0.0.1/3", "unspecified"),
        ("::", "unspecified"),
        ("::/8", "unspecified"),
        ("::/128", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("::ffff:0:0/97", "unspecified"),
        ("10.0.0.1/0", "covers everything"),
        ("2001:db8::/0", "covers everything"),
        ("::ffff:0:0/96", "at least 97"),
        ("::ffff:10.0.0.1/96", "at least 97"),
        ("::ffff:10.0.0.1/64", "at least 97"),
        ("::ffff:10.0.0.1/0", "at least 97"),
    ] {
        let error = sandbox_cidr(entry).expect_err(entry);
        assert!(error.contains(advice), "{entry:?}: {error}");
    }
}

#[test]
fn only_the_operator_may_name_the_unspecified_address() {
    for entry in ["0.0.0.0", "0.0.0.0/8", "::", "::/128", "::/96"] {
        assert!(parse_cidr(entry).is_ok(), "{entry}");
        assert!(sandbox_cidr(entry).is_err(), "{entry}");
    }
}

#[test]
fn all_traffic_is_both_families_and_nothing_else_is() {
    let v4: IpAddr = [203, 0, 113, 9].into();
    let v6: IpAddr = Ipv6Addr::LOCALHOST.into();
    for (entry, on_v4, on_v6) in [
        (ALL_TRAFFIC, Some(0), Some(0)),
        ("::/0", None, Some(0)),
        ("128.0.0.0/1", Some(1), None),
        ("203.0.113.9", Some(32), None),
    ] {
        let net = parse_cidr(entry).expect(entry);
        assert_eq!(
            (covering_length(&net, v4), covering_length(&net, v6)),
            (on_v4, on_v6),
            "{entry}"
        );
        let (families_v4, families_v6) = split_families(net);
        assert_eq!(families_v4.is_some(), on_v4.is_some(), "{entry}");
        assert_eq!(families_v6.is_some(), on_v6.is_some(), "{entry}");
    }
}
