use super::*;

fn error(proxy: &EgressProxy) -> String {
    Socks5Proxy::new(proxy, &Floor::default()).expect_err("refused").to_string()
}

#[test]
fn addresses_are_host_and_port() {
    for (text, normal) in [
        ("proxy.example.com:1080", "proxy.example.com:1080"),
        ("Proxy.Example.com.:1", "proxy.example.com:1"),
        ("8.8.8.8:65535", "8.8.8.8:65535"),
        ("[2001:4860::1]:1080", "[2001:4860::1]:1080"),
        ("[::ffff:8.8.8.8]:1080", "8.8.8.8:1080"),
    ] {
        let tunnel = Socks5Proxy::new(&EgressProxy::without_options(text), &Floor::default());
        assert_eq!(tunnel.expect(text).to_string(), normal);
    }
    let long = format!("{}example.com:1080", "a.".repeat(130));
    for (text, advice) in [
        ("", "empty name"),
        ("proxy.example.com", "port is missing"),
        ("8.8.8.8", "port is missing"),
        ("[2001:4860::1]", "port is missing"),
        ("proxy.example.com:", "1 to 65535"),
        ("proxy.example.com:0", "1 to 65535"),
        ("proxy.example.com:65536", "1 to 65535"),
        ("proxy.example.com:+80", "1 to 65535"),
        ("proxy.example.com:socks", "1 to 65535"),
        (":1080", "empty name"),
        ("2001:4860::1:1080", "brackets"),
        ("socks5://proxy.example.com:1080", "scheme"),
        ("1.2.3:1080", "number"),
        ("a b:1080", "cannot stand in a name"),
        (&long, "255 bytes"),
    ] {
        let error = error(&EgressProxy::without_options(text));
        assert!(error.starts_with("network.egressProxy.address: "), "{error}");
        assert!(error.contains(advice), "{text:?}: {error}");
    }
}

#[test]
fn private_addresses_need_platform_allow() {
    let strings = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (allow, deny, address, good) in [
        (&[][..], None, "10.0.0.5", false),
        (&[], None, "127.0.0.1", false),
        (&[], None, "169.254.169.254", false),
        (&[], None, "[::1]", false),
        (&[], None, "[::ffff:10.0.0.5]", false),
        (&[], None, "[64:ff9b::10.0.0.5]", false),
        (&["10.0.0.0/24"], None, "10.0.0.5", true),
        (&["10.0.0.0/24"], None, "10.0.1.5", false),
        (&["10.0.0.0/24"], Some(&["0.0.0.0/0"][..]), "10.0.0.5", true),
        (&[], Some(&[]), "127.0.0.1", false),
        (&[], Some(&[]), "10.0.0.5", false),
        (&[], Some(&["9.9.9.0/24"]), "9.9.9.9", false),
        (&[], Some(&["9.9.9.0/24"]), "8.8.8.8", true),
    ] {
        let deny = deny.map(strings);
        let floor = Floor::new(&strings(allow), deny.as_deref()).expect("a floor");
        let tunnel =
            Socks5Proxy::new(&EgressProxy::without_options(&format!("{address}:1080")), &floor);
        assert_eq!(tunnel.is_ok(), good, "{address}, allow {allow:?}, deny {deny:?}");
    }
}

#[test]
fn credentials() {
    let with = |username: Option<&str>, password: Option<&str>| EgressProxy {
        username: username.map(str::to_owned),
        password: password.map(|password| SecretString::new(password.to_owned())),
        ..EgressProxy::without_options("proxy.example.com:1080")
    };
    let longest = "x".repeat(255);
    for (proxy, name) in [
        (with(None, None), None),
        (with(Some(""), Some("")), None),
        (with(Some("me"), None), Some("me")),
        (with(Some("me"), Some("hunter2")), Some("me")),
        (with(Some(&longest), Some(&longest)), Some(longest.as_str())),
    ] {
        let tunnel = Socks5Proxy::new(&proxy, &Floor::default()).expect("good");
        assert!(!format!("{tunnel:?}{proxy:?}").contains("hunter2"));
        assert_eq!(tunnel.credentials.map(|known| known.username).as_deref(), name);
    }
    let too_long = "ä".repeat(128);
    for (proxy, start) in [
        (with(None, Some("hunter2")), "network.egressProxy.password: a password needs"),
        (with(Some(""), Some("hunter2")), "network.egressProxy.password: a password needs"),
        (with(Some(&too_long), None), "network.egressProxy.username: longer than 255"),
        (with(Some("me"), Some(&too_long)), "network.egressProxy.password: longer than 255"),
    ] {
        let error = error(&proxy);
        assert!(error.starts_with(start), "{error}");
        assert!(!error.contains("hunter2") && !error.contains('ä'), "{error}");
    }
    let error = error(&EgressProxy::without_options("socks5://me:hunter2@proxy.example.com:1080"));
    assert!(error.contains("fields of their own") && !error.contains("hunter2"), "{error}");
}
