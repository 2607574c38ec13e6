//! `egressProxy`: what a policy lets out by TCP goes through the sandbox's SOCKS5 proxy, or nowhere.

use policy_tests::{
    names::{
        Names, Site,
        daemon::Daemon,
        raw::Ending,
        socks::{CREDENTIALS, Kind, PORT, Socks},
        zone::Answer,
    },
    probe::{self, Seen},
    server::{ECHO, HTTPS, SSH},
    stage::{Guest, OrFail as _, RESOLVERS, Shared, ip},
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with_names(RESOLVERS);
/// The operator allows one private address, and one that sandboxes reach without their proxies.
static FLOOR: Shared = Shared::with_names(
    "[dataplane]\nplatform_allow = [\"10.99.0.1\", \"198.51.100.7\"]\n\
     [proxy]\nresolvers = [\"8.8.8.8:53\"]\n",
);

/// A sandbox, its proxy, and a site.
struct Scene {
    sandbox: Guest,
    socks: Socks,
    site: Site,
}

impl Scene {
    #[track_caller]
    fn set(name: &str, kind: Kind) -> Self {
        let sandbox = STAGE.sandbox();
        let stage = &sandbox.stage;
        let proxy = format!("proxy.{name}.example");
        let socks = Socks::start(stage.names(), &stage.world.internet, &proxy, kind);
        let socks = socks.or_fail("starting a SOCKS5 proxy");
        let site = stage.site(&format!("{name}.example"));
        Self { sandbox, socks, site }
    }

    fn names(&self) -> &Names {
        self.sandbox.stage.names()
    }

    /// Gives the sandbox this proxy, with the fields of `more` besides its address.
    #[track_caller]
    fn tunnel(&self, mut network: Value, more: Value) {
        let mut proxy = json!({ "address": format!("{}:{PORT}", self.socks.site.name) });
        if let (Some(proxy), Some(more)) = (proxy.as_object_mut(), more.as_object()) {
            proxy.extend(more.clone());
        }
        network["egressProxy"] = proxy;
        self.sandbox.network(network);
    }

    /// Fetches from the site, both ways.
    fn fetch(&self) -> [policy_tests::names::curl::Fetched; 2] {
        ["http", "https"]
            .map(|scheme| self.sandbox.curl(&format!("{scheme}://{}/", self.site.name)).run())
    }

    /// Both ways fail, and nobody comes to the site.
    #[track_caller]
    fn fails_closed(&self, reason: &str) {
        let visits = || self.site.addresses().map(|address| self.names().visits(address));
        let before = visits();
        let [http, https] = self.fetch();
        http.is_refused(502, reason);
        https.has_failed();
        self.sandbox.event("the refusal", |event| event["reason"] == reason);
        assert_eq!(visits(), before, "somebody went directly");
    }

    fn by_name(&self) -> Value {
        json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [self.site.name] })
    }
}

#[test]
fn names_are_handed_over_as_names_and_addresses_as_addresses() {
    let scene = Scene::set("handed", Kind::Open);
    let name = &scene.site.name;
    let mut network = scene.by_name();
    network["allowOut"] = json!([name, "1.1.1.1", "2606:4700:4700::1111"]);
    scene.tunnel(network, json!({}));
    // Where the sandbox thinks that the name leads does not matter.
    for scheme in ["http", "https"] {
        let curl = scene.sandbox.curl(&format!("{scheme}://{name}/"));
        let fetched = curl.misled_to(ip("203.0.113.10")).run();
        assert!(scene.site.shows(&fetched.page()), "{fetched:?}");
        // As the proxy is the site's neighbour, that is where the request comes from.
        assert_eq!(fetched.page()["peer"], fetched.page()["server"], "not from the agent");
    }
    for url in ["https://1.1.1.1/", "http://[2606:4700:4700::1111]/"] {
        let fetched = scene.sandbox.curl(url).run();
        assert_eq!(fetched.page()["peer"], fetched.page()["server"], "{fetched:?}");
    }
    assert_eq!(scene.sandbox.tcp("1.1.1.1", ECHO), Seen::Answered);
    assert_eq!(scene.sandbox.tcp("1.1.1.1", SSH), Seen::Answered);
    let expected = [
        format!("name {name}:80"),
        format!("name {name}:443"),
        "address 1.1.1.1:443".to_owned(),
        "address [2606:4700:4700::1111]:80".to_owned(),
        format!("address 1.1.1.1:{ECHO}"),
        format!("address 1.1.1.1:{SSH}"),
    ];
    assert_eq!(scene.socks.log(), expected);
    let asked = scene.names().zone.asked(name);
    let own = scene.sandbox.addresses();
    assert!(asked.iter().all(|asked| own.contains(&asked.by)), "the agent asks nobody: {asked:?}");
}

#[test]
fn deny_rules_hold_and_udp_is_not_tunnelled() {
    let scene = Scene::set("denied", Kind::Open);
    scene.tunnel(json!({ "denyOut": ["1.1.1.1", "2001:db8:1::1"] }), json!({}));
    assert_eq!(scene.sandbox.tcp("1.1.1.1", ECHO), Seen::Refused);
    assert_eq!(scene.sandbox.tcp("2001:db8:1::1", ECHO), Seen::Refused);
    assert_eq!(scene.sandbox.tcp("169.254.169.254", ECHO), Seen::Refused);
    assert_eq!(scene.sandbox.udp("1.1.1.1", ECHO), Seen::Prohibited);
    assert!(scene.socks.log().is_empty(), "{:?}", scene.socks.log());
    assert_eq!(scene.sandbox.udp("8.8.8.8", ECHO), Seen::Answered);
    assert!(scene.socks.log().is_empty(), "{:?}", scene.socks.log());
    assert_eq!(scene.sandbox.tcp("8.8.8.8", ECHO), Seen::Answered);
    assert_eq!(scene.socks.log(), [format!("address 8.8.8.8:{ECHO}")]);
    scene.tunnel(scene.by_name(), json!({}));
    scene.sandbox.curl("https://other.test/").misled_to(ip("1.1.1.1")).run().is_denied();
    let http = scene.sandbox.curl("http://other.test/").misled_to(ip("1.1.1.1")).run();
    http.is_refused(403, "name_not_allowed");
    assert_eq!(scene.socks.log().len(), 1);
}

#[test]
fn username_and_password_have_to_be_right() {
    let scene = Scene::set("password", Kind::WithPassword);
    let (username, password) = CREDENTIALS;
    let right = json!({ "username": username, "password": password });
    scene.tunnel(scene.by_name(), right);
    for fetched in scene.fetch() {
        assert!(scene.site.shows(&fetched.page()), "{fetched:?}");
    }
    for wrong in [json!({ "username": username, "password": "hush-hush" }), json!({})] {
        scene.tunnel(scene.by_name(), wrong);
        scene.fails_closed("egress_proxy_failed");
    }
    let log = scene.sandbox.stage.agent().log();
    assert!(!log.contains("hush-hush") && !log.contains(password), "{log}");
    let shown = scene.sandbox.status().to_string();
    assert!(!shown.contains("hush-hush"), "{shown}");
}

#[test]
fn the_proxy_may_be_reached_by_tls() {
    let scene = Scene::set("encrypted", Kind::OverTls);
    let (ca, name) = (scene.names().authority.pem(), &scene.socks.site.name);
    scene.tunnel(scene.by_name(), json!({ "tls": { "serverName": name, "ca": ca } }));
    for fetched in scene.fetch() {
        assert!(scene.site.shows(&fetched.page()), "{fetched:?}");
    }
    assert_eq!(scene.socks.log().len(), 2);
    let stranger = policy_tests::names::authority::Authority::new().or_fail("another authority");
    // Another authority, none but the public ones, and no TLS at all.
    for wrong in [
        json!({ "tls": { "serverName": name, "ca": stranger.pem() } }),
        json!({ "tls": { "serverName": name } }),
        json!({}),
    ] {
        scene.tunnel(scene.by_name(), wrong);
        scene.fails_closed("egress_proxy_failed");
    }
    assert_eq!(scene.socks.log().len(), 2);
}

#[test]
fn a_proxy_that_is_down_fails_closed() {
    let scene = Scene::set("down", Kind::Open);
    scene.tunnel(scene.by_name(), json!({ "address": format!("{}:9", scene.socks.site.name) }));
    scene.fails_closed("egress_proxy_failed");
    scene.tunnel(scene.by_name(), json!({ "address": "nowhere.down.example:1080" }));
    scene.fails_closed("egress_proxy_failed");
    scene.tunnel(json!({}), json!({ "address": format!("{}:9", scene.socks.site.name) }));
    let before = scene.names().visits(scene.site.v4);
    assert_eq!(scene.sandbox.tcp(&scene.site.v4.to_string(), HTTPS), Seen::Refused);
    assert_eq!(scene.names().visits(scene.site.v4), before);
}

#[test]
fn a_private_proxy_is_refused_unless_the_operator_allows_it() {
    let scene = Scene::set("private", Kind::Open);
    let path = format!("/agent/v1/sandboxes/{}", scene.sandbox.id);
    for address in ["10.99.0.1:1080", "127.0.0.1:1080", "[fd99::1]:1080", "169.254.169.254:80"] {
        let network = json!({ "egressProxy": { "address": address } });
        let spec = scene.sandbox.spec(&json!({ "network": network }));
        let answer = scene.sandbox.stage.request("PUT", &path, &spec);
        assert_eq!(answer.code, 400, "{address}: {}", answer.body);
        assert!(answer.body.contains("egressProxy"), "{}", answer.body);
    }
    // A name is looked up when it is dialled.
    for private in ["10.99.0.1", "127.0.0.1", "169.254.169.254"] {
        scene.names().zone.set("inside.private.example", Answer::of(&[ip(private)]));
        scene.tunnel(scene.by_name(), json!({ "address": "inside.private.example:80" }));
        scene.fails_closed("egress_proxy_failed");
        assert_eq!(scene.names().visits(ip(private)), 0, "{private}");
    }
}

#[test]
fn what_the_operator_allows_is_a_proxy_or_goes_directly() {
    let sandbox = FLOOR.sandbox();
    let stage = &sandbox.stage;
    let (names, internet) = (stage.names(), &stage.world.internet);
    let socks = Socks::start_at(names, internet, ip("10.99.0.1"), Kind::Open).or_fail("SOCKS5");
    let site = stage.site("private.example");
    sandbox.network(json!({
        "denyOut": ["0.0.0.0/0"],
        "allowOut": ["private.example"],
        "egressProxy": { "address": "10.99.0.1:1080" },
    }));
    let fetched = sandbox.curl("https://private.example/").run();
    assert!(site.shows(&fetched.page()), "{fetched:?}");
    assert_eq!(socks.log(), ["name private.example:443"]);
    assert_eq!(sandbox.tcp("198.51.100.7", ECHO), Seen::Answered);
    assert_eq!(sandbox.tcp("198.51.100.7", SSH), Seen::Answered);
    assert_eq!(socks.log().len(), 1, "line 4 is not tunnelled");
}

#[test]
fn a_proxy_comes_and_goes_with_an_update() {
    let scene = Scene::set("changing", Kind::Open);
    scene.sandbox.network(json!({}));
    let echo = (ip("8.8.8.8"), ECHO).into();
    let mut direct = probe::connect(&scene.sandbox.inside, echo).or_fail("connecting");
    probe::echo(&mut direct, b"directly").or_fail("an echo");
    scene.tunnel(json!({}), json!({}));
    let after = probe::echo(&mut direct, b"directly?");
    assert!(after.is_err(), "a connection that goes past the proxy");
    let mut tunnelled = probe::connect(&scene.sandbox.inside, echo).or_fail("connecting");
    probe::echo(&mut tunnelled, b"by proxy").or_fail("an echo");
    assert_eq!(scene.socks.log(), [format!("address 8.8.8.8:{ECHO}")]);
    scene.sandbox.network(json!({}));
    assert!(probe::echo(&mut tunnelled, b"still?").is_err(), "the proxy is not in force");
    assert_eq!(scene.sandbox.tcp("8.8.8.8", ECHO), Seen::Answered);
    assert_eq!(scene.socks.log().len(), 1);
}

#[test]
fn explain_says_what_is_tunnelled() {
    let scene = Scene::set("explained", Kind::Open);
    scene.tunnel(scene.by_name(), json!({}));
    let port = HTTPS.to_string();
    let explain = |more: &[&str]| {
        let id = &scene.sandbox.id;
        let asked =
            [&["explain", id, "203.0.113.10", "--port", &port, "-o", "json"], more].concat();
        scene.sandbox.stage.cli(&asked).json()
    };
    let allowed = explain(&["--host", &scene.site.name]);
    assert_eq!((&allowed["reason"], &allowed["tunnel"]), (&json!("allow_name"), &json!(true)));
    assert_eq!(explain(&["--host", "other.test"])["tunnel"], false);
}

#[test]
fn a_real_microsocks_carries_addresses() {
    let stage = STAGE.stage();
    let sandbox = stage.sandbox();
    let (names, internet) = (stage.names(), &stage.world.internet);
    let at = names.place("micro.example").or_fail("a place").v4;
    let microsocks = Daemon::microsocks(internet, (at, PORT).into()).or_fail("microsocks");
    sandbox.network(json!({ "egressProxy": { "address": format!("{at}:{PORT}") } }));
    let fetched = sandbox.curl("https://1.1.1.1/").run();
    assert_eq!(fetched.page()["peer"], fetched.page()["server"], "{fetched:?}");
    drop(microsocks);
    assert_eq!(sandbox.ending(ip("1.1.1.1"), HTTPS, b"anybody?"), Ending::Reset);
}
