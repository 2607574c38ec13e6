use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

#[test]
fn patterns_are_normalised() {
    let longest_label = "a".repeat(63);
    let longest = format!("{}{}", "a.".repeat(125), "com");
    let longest_wild = format!("*.{}{}", "a.".repeat(124), "com");
    for (text, normal) in [
        ("example.com", "example.com"),
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("*.Example.com.", "*.example.com"),
        ("*.com", "*.com"),
        ("*", "*"),
        ("localhost", "localhost"),
        ("3com.com", "3com.com"),
        ("1.2.3.example", "1.2.3.example"),
        ("r3---sn-abc.googlevideo.com", "r3---sn-abc.googlevideo.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
        ("XN--Bcher-KVA.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
        ("ｅｘａｍｐｌｅ.com", "example.com"),
        ("My_Bucket.s3.example", "my_bucket.s3.example"),
        ("_dmarc.example", "_dmarc.example"),
        ("a_.example", "a_.example"),
        ("*.my_zone.example", "*.my_zone.example"),
        ("a_b.bücher.example", "a_b.xn--bcher-kva.example"),
        (&longest_label, &longest_label),
        (&longest, &longest),
        (&longest_wild, &longest_wild),
    ] {
        let pattern = DomainPattern::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(pattern.to_string(), normal, "{text}");
        assert_eq!(DomainPattern::parse(normal), Ok(pattern), "{normal}");
    }
    assert_eq!((longest.len(), longest_wild.len()), (253, 253));
}

#[test]
fn errors_say_what_is_wrong() {
    let long_label = "a".repeat(64);
    let long = format!("{}{}", "a.".repeat(126), "co");
    let long_wild = format!("*.{}{}", "a.".repeat(125), "co");
    for (text, advice) in [
        ("", "empty name"),
        (".", "empty name"),
        ("*.", "empty name"),
        ("*..", "empty name"),
        (".example.com", "empty label"),
        ("a..b", "empty label"),
        ("example.com..", "empty label"),
        ("*example.com", "wildcard"),
        ("foo.*.com", "wildcard"),
        ("*.*.com", "wildcard"),
        ("**", "wildcard"),
        ("*.*", "wildcard"),
        ("exa mple.com", "' ' cannot"),
        ("example.com\0", "cannot"),
        ("a/b", "'/' cannot"),
        ("-a.example", "start or end with -"),
        ("a-.example", "start or end with -"),
        ("1.2.3", "number"),
        ("1.2.3.4", "number"),
        ("999.1.1.1", "number"),
        ("*.1", "number"),
        ("127.1", "number"),
        ("1.2.3.4.", "number"),
        ("0x7f.1", "number"),
        ("0x7f000001", "number"),
        ("foo.0x", "number"),
        ("１.２.３.４", "number"),
        ("::1", "cannot"),
        ("xn--a", "IDNA"),
        ("＊.example", "IDNA"),
        (&long_label, "63"),
        (&long, "253"),
        (&long_wild, "253"),
    ] {
        let error = DomainPattern::parse(text).expect_err(text);
        assert!(error.contains(advice), "{text:?}: {error}");
    }
}

#[test]
fn patterns_match() {
    for (pattern, host, matches) in [
        ("example.com", "example.com", true),
        ("example.com", "EXAMPLE.com.", true),
        ("example.com", "www.example.com", false),
        ("example.com", "example.com.evil.org", false),
        ("example.com", "notexample.com", false),
        ("*.example.com", "www.example.com", true),
        ("*.example.com", "a.b.c.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "notexample.com", false),
        ("*.example.com", "www.example.com.evil.org", false),
        ("*.example.com", "com", false),
        ("*", "example.com", true),
        ("*", "localhost", true),
        ("bücher.example", "xn--bcher-kva.example", true),
        ("xn--bcher-kva.example", "Bücher.example", true),
        ("*.amazonaws.com", "my_bucket.s3.amazonaws.com", true),
        ("my_bucket.s3.amazonaws.com", "My_Bucket.s3.amazonaws.com", true),
        ("my_bucket.s3.amazonaws.com", "my-bucket.s3.amazonaws.com", false),
        ("*.example.com", "-r3---sn.example.com", true),
        ("*.example.com", "a.b-.example.com", true),
        ("*.example.com", "-.example.com", true),
        ("*", "-a.bücher.example", true),
        ("example.com", "-example.com", false),
    ] {
        let read = DomainPattern::parse(pattern).expect(pattern);
        let name = DomainName::parse_requested(host).expect(host);
        assert_eq!(read.matches(&name), matches, "{pattern} on {host}");
    }
}

/// Compares labels from right to left.
fn obviously_matches(pattern: &str, host: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('.').rev().collect();
    let host: Vec<&str> = host.split('.').rev().collect();
    match pattern.split_last() {
        Some((&"*", suffix)) => host.len() > suffix.len() && host.starts_with(suffix),
        _ => pattern == host,
    }
}

proptest! {
    #[test]
    fn matching_is_by_labels(
        pattern in r"(\*|[ab]{1,2})(\.[ab]{1,2}){0,3}",
        host in r"[ab]{1,2}(\.[ab]{1,2}){0,4}",
    ) {
        let read = DomainPattern::parse(&pattern).expect("a pattern");
        let name = DomainName::parse(&host).expect("a name");
        prop_assert_eq!(read.matches(&name), obviously_matches(&pattern, &host));
        let shouted = DomainName::parse(&format!("{}.", host.to_uppercase())).expect("a name");
        prop_assert_eq!(shouted, name);
    }

    #[test]
    fn what_is_read_is_a_name_and_reads_as_itself(text in r"(\PC|[a-zA-Z0-9.*_-]){0,12}") {
        if let Ok(name) = DomainName::parse(&text) {
            let text = name.as_str();
            prop_assert!(text.len() <= MAX_DOMAIN_LEN && !text.ends_with('.'));
            prop_assert!(text.split('.').all(|label| (1..=MAX_LABEL_LEN).contains(&label.len())));
            prop_assert!(text.bytes().all(
                |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b)
            ));
            prop_assert!(text.parse::<std::net::IpAddr>().is_err());
            prop_assert_eq!(DomainName::parse(text), Ok(name.clone()));
            prop_assert_eq!(DomainName::parse_requested(text), Ok(name.clone()));
        }
        if let Ok(pattern) = DomainPattern::parse(&text) {
            prop_assert_eq!(DomainPattern::parse(&pattern.to_string()), Ok(pattern));
        }
    }

    #[test]
    fn what_a_client_asks_for_reads_as_itself(text in r"[a-wyz0-9._-]{0,12}") {
        if let Ok(name) = DomainName::parse_requested(&text) {
            prop_assert_eq!(DomainName::parse_requested(name.as_str()), Ok(name.clone()));
            let outer = |label: &str| label.starts_with('-') || label.ends_with('-');
            let strict = DomainName::parse(&text);
            prop_assert_eq!(strict.is_err(), name.as_str().split('.').any(outer));
        }
    }

    #[test]
    fn an_address_is_no_name(v4: [u8; 4], v6: [u8; 16]) {
        prop_assert!(DomainName::parse(&Ipv4Addr::from(v4).to_string()).is_err());
        let below = format!("*.{}", Ipv4Addr::from(v4));
        prop_assert!(DomainPattern::parse(&below).is_err());
        prop_assert!(DomainName::parse(&Ipv6Addr::from(v6).to_string()).is_err());
    }
}
