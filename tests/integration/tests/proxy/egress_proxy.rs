//! `egressProxy`: allowed TCP connections use the sandbox's SOCKS5 proxy or fail.

use policy_testbed::{
    named_internet::{
        NamedInternet, WebSite, dns_zone::DnsAnswer, raw_http::CloseKind,
        server_process::ServerProcess,
    },
    probe::{self, ProbeResult},
    test_servers::{ECHO_PORT, HTTPS_PORT, SSH_PORT},
    testbed::{OrFail as _, RESOLVER_CONFIG, SharedTestbed, TestSandbox, parse_ip},
};
use serde_json::{Value, json};

use super::socks_proxy::{SOCKS_CREDENTIALS, SOCKS_PORT, SocksMode, SocksProxy};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);
/// The operator allows one private address, and exempts one address from egress proxies.
static FLOOR_TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[dataplane]\nplatform_allow = [\"10.99.0.1\", \"198.51.100.7\"]\n\
     [proxy]\nresolvers = [\"8.8.8.8:53\"]\n",
);

/// A sandbox, its proxy, and a site.
struct EgressProxyScenario {
    sandbox: TestSandbox,
    proxy: SocksProxy,
    site: WebSite,
}

impl EgressProxyScenario {
    #[track_caller]
    fn new(name: &str, kind: SocksMode) -> Self {
        let sandbox = TESTBED.add_sandbox();
        let stage = &sandbox.testbed;
        let proxy = format!("proxy.{name}.example");
        let socks =
            SocksProxy::start(stage.named_internet(), &stage.network.internet, &proxy, kind);
        let socks = socks.or_fail("starting a SOCKS5 proxy");
        let site = stage.add_site(&format!("{name}.example"));
        Self { sandbox, proxy: socks, site }
    }

    fn named_internet(&self) -> &NamedInternet {
        self.sandbox.testbed.named_internet()
    }

    /// Configures this proxy, with the fields of `more` in addition to its address.
    #[track_caller]
    fn apply_egress_proxy(&self, mut network: Value, more: Value) {
        let mut proxy = json!({ "address": format!("{}:{SOCKS_PORT}", self.proxy.site.name) });
        if let (Some(proxy), Some(more)) = (proxy.as_object_mut(), more.as_object()) {
            proxy.extend(more.clone());
        }
        network["egressProxy"] = proxy;
        self.sandbox.apply_network(network);
    }

    /// Fetches from the site over HTTP and HTTPS.
    fn fetch_both_ways(&self) -> [policy_testbed::named_internet::curl::CurlResult; 2] {
        ["http", "https"]
            .map(|scheme| self.sandbox.curl(&format!("{scheme}://{}/", self.site.name)).run())
    }

    /// Asserts that both requests fail and that no connection reaches the site.
    #[track_caller]
    fn assert_fails_closed(&self, reason: &str) {
        let visits =
            || self.site.addresses().map(|address| self.named_internet().connection_count(address));
        let before = visits();
        let [http, https] = self.fetch_both_ways();
        http.assert_refused(502, reason);
        https.assert_failed_by_alert();
        self.sandbox.wait_for_event("the refusal", |event| event["reason"] == reason);
        assert_eq!(visits(), before, "somebody went directly");
    }

    fn proxy_by_name(&self) -> Value {
        json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [self.site.name] })
    }
}

#[test]
fn names_are_forwarded_as_names_and_addresses_as_addresses() {
    let scene = EgressProxyScenario::new("handed", SocksMode::NoAuth);
    let name = &scene.site.name;
    let mut network = scene.proxy_by_name();
    network["allowOut"] = json!([name, "1.1.1.1", "2606:4700:4700::1111"]);
    scene.apply_egress_proxy(network, json!({}));
    // The address to which the sandbox resolves the name does not matter.
    for scheme in ["http", "https"] {
        let curl = scene.sandbox.curl(&format!("{scheme}://{name}/"));
        let fetched = curl.resolving_to(parse_ip("203.0.113.10")).run();
        assert!(scene.site.served_page(&fetched.page_json()), "{fetched:?}");
        // The proxy is on the same host as the site, so the request comes from there.
        assert_eq!(
            fetched.page_json()["peer"],
            fetched.page_json()["server"],
            "not from the agent"
        );
    }
    for url in ["https://1.1.1.1/", "http://[2606:4700:4700::1111]/"] {
        let fetched = scene.sandbox.curl(url).run();
        assert_eq!(fetched.page_json()["peer"], fetched.page_json()["server"], "{fetched:?}");
    }
    assert_eq!(scene.sandbox.probe_tcp("1.1.1.1", ECHO_PORT), ProbeResult::Answered);
    assert_eq!(scene.sandbox.probe_tcp("1.1.1.1", SSH_PORT), ProbeResult::Answered);
    let expected = [
        format!("name {name}:80"),
        format!("name {name}:443"),
        "address 1.1.1.1:443".to_owned(),
        "address [2606:4700:4700::1111]:80".to_owned(),
        format!("address 1.1.1.1:{ECHO_PORT}"),
        format!("address 1.1.1.1:{SSH_PORT}"),
    ];
    assert_eq!(scene.proxy.logged_requests(), expected);
    let asked = scene.named_internet().zone.queries_for(name);
    let own = scene.sandbox.addresses();
    assert!(
        asked.iter().all(|asked| own.contains(&asked.client)),
        "the agent asks nobody: {asked:?}"
    );
}

#[test]
fn deny_rules_hold_and_udp_is_not_proxied() {
    let scene = EgressProxyScenario::new("denied", SocksMode::NoAuth);
    scene.apply_egress_proxy(json!({ "denyOut": ["1.1.1.1", "2001:db8:1::1"] }), json!({}));
    assert_eq!(scene.sandbox.probe_tcp("1.1.1.1", ECHO_PORT), ProbeResult::Refused);
    assert_eq!(scene.sandbox.probe_tcp("2001:db8:1::1", ECHO_PORT), ProbeResult::Refused);
    assert_eq!(scene.sandbox.probe_tcp("169.254.169.254", ECHO_PORT), ProbeResult::Refused);
    assert_eq!(scene.sandbox.probe_udp("1.1.1.1", ECHO_PORT), ProbeResult::Prohibited);
    assert!(scene.proxy.logged_requests().is_empty(), "{:?}", scene.proxy.logged_requests());
    assert_eq!(scene.sandbox.probe_udp("8.8.8.8", ECHO_PORT), ProbeResult::Answered);
    assert!(scene.proxy.logged_requests().is_empty(), "{:?}", scene.proxy.logged_requests());
    assert_eq!(scene.sandbox.probe_tcp("8.8.8.8", ECHO_PORT), ProbeResult::Answered);
    assert_eq!(scene.proxy.logged_requests(), [format!("address 8.8.8.8:{ECHO_PORT}")]);
    scene.apply_egress_proxy(scene.proxy_by_name(), json!({}));
    scene
        .sandbox
        .curl("https://other.test/")
        .resolving_to(parse_ip("1.1.1.1"))
        .run()
        .assert_denied_by_alert();
    let http = scene.sandbox.curl("http://other.test/").resolving_to(parse_ip("1.1.1.1")).run();
    http.assert_refused(403, "name_not_allowed");
    assert_eq!(scene.proxy.logged_requests().len(), 1);
}

#[test]
fn username_and_password_have_to_be_right() {
    let scene = EgressProxyScenario::new("password", SocksMode::WithPassword);
    let (username, password) = SOCKS_CREDENTIALS;
    let right = json!({ "username": username, "password": password });
    scene.apply_egress_proxy(scene.proxy_by_name(), right);
    for fetched in scene.fetch_both_ways() {
        assert!(scene.site.served_page(&fetched.page_json()), "{fetched:?}");
    }
    for wrong in [json!({ "username": username, "password": "hush-hush" }), json!({})] {
        scene.apply_egress_proxy(scene.proxy_by_name(), wrong);
        scene.assert_fails_closed("egress_proxy_failed");
    }
    let log = scene.sandbox.testbed.agent().log_tail();
    assert!(!log.contains("hush-hush") && !log.contains(password), "{log}");
    let shown = scene.sandbox.status().to_string();
    assert!(!shown.contains("hush-hush"), "{shown}");
}

#[test]
fn the_proxy_may_be_reached_by_tls() {
    let scene = EgressProxyScenario::new("encrypted", SocksMode::OverTls);
    let (ca, name) = (scene.named_internet().authority.pem(), &scene.proxy.site.name);
    scene.apply_egress_proxy(
        scene.proxy_by_name(),
        json!({ "tls": { "serverName": name, "ca": ca } }),
    );
    for fetched in scene.fetch_both_ways() {
        assert!(scene.site.served_page(&fetched.page_json()), "{fetched:?}");
    }
    assert_eq!(scene.proxy.logged_requests().len(), 2);
    let stranger =
        policy_testbed::named_internet::certificate_authority::CertificateAuthority::new()
            .or_fail("another authority");
    // Another authority, the public authorities only, and no TLS.
    for wrong in [
        json!({ "tls": { "serverName": name, "ca": stranger.pem() } }),
        json!({ "tls": { "serverName": name } }),
        json!({}),
    ] {
        scene.apply_egress_proxy(scene.proxy_by_name(), wrong);
        scene.assert_fails_closed("egress_proxy_failed");
    }
    assert_eq!(scene.proxy.logged_requests().len(), 2);
}

#[test]
fn a_proxy_that_is_down_fails_closed() {
    let scene = EgressProxyScenario::new("down", SocksMode::NoAuth);
    scene.apply_egress_proxy(
        scene.proxy_by_name(),
        json!({ "address": format!("{}:9", scene.proxy.site.name) }),
    );
    scene.assert_fails_closed("egress_proxy_failed");
    scene.apply_egress_proxy(
        scene.proxy_by_name(),
        json!({ "address": "nowhere.down.example:1080" }),
    );
    scene.assert_fails_closed("egress_proxy_failed");
    scene.apply_egress_proxy(
        json!({}),
        json!({ "address": format!("{}:9", scene.proxy.site.name) }),
    );
    let before = scene.named_internet().connection_count(scene.site.v4);
    assert_eq!(
        scene.sandbox.probe_tcp(&scene.site.v4.to_string(), HTTPS_PORT),
        ProbeResult::Refused
    );
    assert_eq!(scene.named_internet().connection_count(scene.site.v4), before);
}

#[test]
fn a_private_proxy_is_refused_unless_the_operator_allows_it() {
    let scene = EgressProxyScenario::new("private", SocksMode::NoAuth);
    let path = format!("/agent/v1/sandboxes/{}", scene.sandbox.id);
    for address in ["10.99.0.1:1080", "127.0.0.1:1080", "[fd99::1]:1080", "169.254.169.254:80"] {
        let network = json!({ "egressProxy": { "address": address } });
        let spec = scene.sandbox.sandbox_spec(&json!({ "network": network }));
        let answer = scene.sandbox.testbed.request("PUT", &path, &spec);
        assert_eq!(answer.status, 400, "{address}: {}", answer.body);
        assert!(answer.body.contains("egressProxy"), "{}", answer.body);
    }
    // The name is resolved when the connection is made.
    for private in ["10.99.0.1", "127.0.0.1", "169.254.169.254"] {
        scene
            .named_internet()
            .zone
            .set_answer("inside.private.example", DnsAnswer::with_addresses(&[parse_ip(private)]));
        scene.apply_egress_proxy(
            scene.proxy_by_name(),
            json!({ "address": "inside.private.example:80" }),
        );
        scene.assert_fails_closed("egress_proxy_failed");
        assert_eq!(scene.named_internet().connection_count(parse_ip(private)), 0, "{private}");
    }
}

#[test]
fn what_the_operator_allows_is_a_proxy_or_goes_directly() {
    let sandbox = FLOOR_TESTBED.add_sandbox();
    let stage = &sandbox.testbed;
    let (names, internet) = (stage.named_internet(), &stage.network.internet);
    let socks = SocksProxy::start_at(names, internet, parse_ip("10.99.0.1"), SocksMode::NoAuth)
        .or_fail("SOCKS5");
    let site = stage.add_site("private.example");
    sandbox.apply_network(json!({
        "denyOut": ["0.0.0.0/0"],
        "allowOut": ["private.example"],
        "egressProxy": { "address": "10.99.0.1:1080" },
    }));
    let fetched = sandbox.curl("https://private.example/").run();
    assert!(site.served_page(&fetched.page_json()), "{fetched:?}");
    assert_eq!(socks.logged_requests(), ["name private.example:443"]);
    assert_eq!(sandbox.probe_tcp("198.51.100.7", ECHO_PORT), ProbeResult::Answered);
    assert_eq!(sandbox.probe_tcp("198.51.100.7", SSH_PORT), ProbeResult::Answered);
    assert_eq!(socks.logged_requests().len(), 1, "line 4 is not tunnelled");
}

#[test]
fn a_proxy_comes_and_goes_with_an_update() {
    let scene = EgressProxyScenario::new("changing", SocksMode::NoAuth);
    scene.sandbox.apply_network(json!({}));
    let echo = (parse_ip("8.8.8.8"), ECHO_PORT).into();
    let mut direct = probe::connect(&scene.sandbox.namespace, echo).or_fail("connecting");
    probe::echo(&mut direct, b"directly").or_fail("an echo");
    scene.apply_egress_proxy(json!({}), json!({}));
    let after = probe::echo(&mut direct, b"directly?");
    assert!(after.is_err(), "a connection that goes past the proxy");
    let mut tunnelled = probe::connect(&scene.sandbox.namespace, echo).or_fail("connecting");
    probe::echo(&mut tunnelled, b"by proxy").or_fail("an echo");
    assert_eq!(scene.proxy.logged_requests(), [format!("address 8.8.8.8:{ECHO_PORT}")]);
    scene.sandbox.apply_network(json!({}));
    assert!(probe::echo(&mut tunnelled, b"still?").is_err(), "the proxy is not in force");
    assert_eq!(scene.sandbox.probe_tcp("8.8.8.8", ECHO_PORT), ProbeResult::Answered);
    assert_eq!(scene.proxy.logged_requests().len(), 1);
}

#[test]
fn explain_says_what_goes_through_the_proxy() {
    let scene = EgressProxyScenario::new("explained", SocksMode::NoAuth);
    scene.apply_egress_proxy(scene.proxy_by_name(), json!({}));
    let port = HTTPS_PORT.to_string();
    let explain = |more: &[&str]| {
        let id = &scene.sandbox.id;
        let asked =
            [&["explain", id, "203.0.113.10", "--port", &port, "-o", "json"], more].concat();
        scene.sandbox.testbed.cli(&asked).json()
    };
    let allowed = explain(&["--host", &scene.site.name]);
    assert_eq!((&allowed["reason"], &allowed["tunnel"]), (&json!("allow_name"), &json!(true)));
    assert_eq!(explain(&["--host", "other.test"])["tunnel"], false);
}

#[test]
fn a_real_microsocks_carries_addresses() {
    let stage = TESTBED.testbed();
    let sandbox = stage.add_sandbox();
    let (names, internet) = (stage.named_internet(), &stage.network.internet);
    let at = names.reserve_site("micro.example").or_fail("a place").v4;
    let microsocks =
        ServerProcess::start_microsocks(internet, (at, SOCKS_PORT).into()).or_fail("microsocks");
    sandbox.apply_network(json!({ "egressProxy": { "address": format!("{at}:{SOCKS_PORT}") } }));
    let fetched = sandbox.curl("https://1.1.1.1/").run();
    assert_eq!(fetched.page_json()["peer"], fetched.page_json()["server"], "{fetched:?}");
    drop(microsocks);
    assert_eq!(sandbox.close_after(parse_ip("1.1.1.1"), HTTPS_PORT, b"anybody?"), CloseKind::Reset);
}
