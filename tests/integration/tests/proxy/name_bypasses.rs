//! Known bypasses of filters that judge names: each one ends at the server of the allowed name, or
//! is dropped.

use std::net::IpAddr;

use policy_testbed::{
    named_internet::{
        WebSite,
        client_hello::{self, ALERT_ACCESS_DENIED, ALERT_INTERNAL_ERROR},
    },
    test_servers::{HTTP_PORT, HTTPS_PORT},
    testbed::{DomainScenario, RESOLVER_CONFIG, SharedTestbed, parse_ip},
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

#[track_caller]
fn domain_scenario(name: &str) -> DomainScenario {
    DomainScenario::new(&TESTBED, name)
}

#[test]
fn forged_sni_or_host_towards_an_attacker_reaches_the_real_server() {
    let scene = domain_scenario("forged");
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/", scene.allowed_site.name);
        for to in scene.denied_site.addresses() {
            let fetched = scene.sandbox.curl(&url).resolving_to(to).run();
            let page = fetched.page_json();
            assert!(scene.allowed_site.served_page(&page), "{scheme} by way of {to}: {fetched:?}");
            assert_eq!(page["host"], scene.allowed_site.name, "{page}");
            let line = format!("{to} {}", scene.allowed_site.name);
            let fetched = scene.sandbox.curl(&url).with_hosts_line(&line).run();
            assert!(
                scene.allowed_site.served_page(&fetched.page_json()),
                "a hosts file: {fetched:?}"
            );
        }
    }
    scene.assert_denied_site_unreached();
}

#[test]
fn a_name_that_is_not_allowed_is_refused_with_a_reason_and_never_resolved() {
    let scene = domain_scenario("denied");
    let name = &scene.denied_site.name;
    scene.sandbox.curl(&format!("https://{name}/")).run().assert_denied_by_alert();
    let fetched = scene.sandbox.curl(&format!("http://{name}/")).run();
    fetched.assert_refused(403, "name_not_allowed");
    for port in [HTTP_PORT, HTTPS_PORT] {
        let event = scene.sandbox.wait_for_event("the denial", |event| {
            event["name"] == *name && event["destinationPort"] == port
        });
        assert_eq!((&event["reason"], &event["line"]), (&json!("name_not_allowed"), &json!(7)));
        assert!(
            event["destination"].as_str().is_some_and(|it| is_site_address(&scene.denied_site, it))
        );
        assert_eq!(event["protocol"], "tcp");
    }
    let metrics = scene.sandbox.testbed.request("GET", "/metrics", &json!(null)).body;
    for protocol in ["tls", "http"] {
        let id = &scene.sandbox.id;
        let counted = metrics.lines().any(|line| {
            let labels = [format!("sandbox=\"{id}\""), format!("protocol=\"{protocol}\"")];
            line.starts_with("policy_proxy_connections_total{")
                && labels.iter().all(|label| line.contains(label))
                && line.contains("decision=\"denied\"")
                && line.ends_with(" 1")
        });
        assert!(counted, "{protocol}: {metrics}");
    }
    scene.assert_denied_site_unreached();
}

fn is_site_address(site: &WebSite, text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|address| site.addresses().contains(&address))
}

#[test]
fn an_invalid_name_is_refused() {
    let scene = domain_scenario("invalid");
    scene.sandbox.allow_only(&["*"]);
    let long_label = format!("{}.example", "a".repeat(64));
    let long = ["a".repeat(60).as_str(); 5].join(".");
    let names = [
        "",
        ".",
        "a..example",
        "a b.example",
        "a!b.example",
        "b\u{fc}cher.example",
        "*.example",
        "evil\0.example",
        "evil.example\0",
        "a.example..",
        &long_label,
        &long,
        "%61.example",
        "a.exa\tmple",
    ];
    for name in names {
        let hello = client_hello::split_into_records(
            &client_hello::hello_message(Some(name.as_bytes()), &[]),
            1000,
        );
        let alert = if name.is_empty() { ALERT_INTERNAL_ERROR } else { ALERT_ACCESS_DENIED };
        scene.assert_alert(&hello, alert);
        let mut talk = scene.connect_to_denied_site(HTTP_PORT);
        let reply = talk.send_get(name).try_read_response();
        assert!(
            reply.as_ref().ok().is_none_or(|reply| (400..500).contains(&reply.status)),
            "{reply:?}"
        );
    }
    for literal in ["203.0.113.10", "::1", "[::1]", "169.254.169.254", "0x7f000001", "127.1"] {
        let hello = client_hello::hello_message(Some(literal.as_bytes()), &[]);
        scene.assert_alert(&client_hello::split_into_records(&hello, 1000), ALERT_ACCESS_DENIED);
    }
    scene.sandbox.wait_for_event("a denial", |event| event["reason"] == "invalid_name");
    scene.assert_denied_site_unreached();
    assert_eq!(
        scene.sandbox.testbed.named_internet().connection_count(parse_ip("169.254.169.254")),
        0
    );
}

#[test]
fn a_name_may_be_written_in_every_way() {
    let scene = domain_scenario("spelled");
    let (v4, name) = (scene.denied_site.v4, &scene.allowed_site.name);
    let stage = &scene.sandbox.testbed;
    let idna = stage.add_site("xn--bcher-kva.spelled.example");
    scene.sandbox.allow_only(&["SPELLED.example.", "b\u{fc}cher.spelled.example"]);
    for host in [name.to_uppercase(), format!("{name}."), format!("{name}:80")] {
        let reply = scene.connect_to_denied_site(HTTP_PORT).send_get(&host).read_response();
        assert!(scene.allowed_site.served_page(&reply.page_json()), "{host}: {reply:?}");
    }
    for host in [name.to_uppercase(), format!("{name}.")] {
        let fetched = scene.sandbox.curl(&format!("https://{host}/")).resolving_to(v4).run();
        assert!(scene.allowed_site.served_page(&fetched.page_json()), "{host}: {fetched:?}");
    }
    let fetched = scene.sandbox.curl(&format!("https://{}/", idna.name)).resolving_to(v4).run();
    assert!(idna.served_page(&fetched.page_json()), "{fetched:?}");
    scene.assert_denied_site_unreached();
}

#[test]
fn exact_names_match_themselves_and_wildcards_what_is_below() {
    let scene = domain_scenario("patterns");
    let stage = &scene.sandbox.testbed;
    let deep = stage.add_site("a.b.wild.patterns.example");
    let wild = stage.add_site("www.wild.patterns.example");
    let apex = stage.add_site("wild.patterns.example");
    let below = stage.add_site("below.patterns.example");
    let lookalike = stage.add_site("notwild.patterns.example");
    let allowed = [scene.allowed_site.name.as_str(), "*.wild.patterns.example"];
    scene.sandbox.allow_only(&allowed);
    let fetch = |site: &WebSite| {
        let https = scene.sandbox.curl(&format!("https://{}/", site.name)).run();
        let http = scene.sandbox.curl(&format!("http://{}/", site.name)).run();
        (https, http)
    };
    for site in [&scene.allowed_site, &deep, &wild] {
        let (https, http) = fetch(site);
        assert!(
            site.served_page(&https.page_json()) && site.served_page(&http.page_json()),
            "{https:?}"
        );
    }
    for site in [&apex, &below, &lookalike, &scene.denied_site] {
        let (https, http) = fetch(site);
        https.assert_denied_by_alert();
        http.assert_refused(403, "name_not_allowed");
    }
    scene.assert_denied_site_unreached();
    scene.sandbox.allow_only(&["*"]);
    let (https, http) = fetch(&scene.denied_site);
    assert!(
        scene.denied_site.served_page(&https.page_json())
            && scene.denied_site.served_page(&http.page_json())
    );
}

#[test]
fn underscores_and_outer_hyphens_are_in_use() {
    let scene = domain_scenario("odd");
    let stage = &scene.sandbox.testbed;
    let bucket = stage.add_site("my_bucket.s3.odd.example");
    let other = stage.add_site("other_bucket.s3.odd.example");
    let hyphen = stage.add_site("-r3---sn-.odd.example");
    for allowed in [&["my_bucket.s3.odd.example"][..], &["*.odd.example"]] {
        scene.sandbox.allow_only(allowed);
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{}/", bucket.name);
            let fetched = scene.sandbox.curl(&url).resolving_to(scene.denied_site.v4).run();
            assert!(bucket.served_page(&fetched.page_json()), "{allowed:?} {scheme}: {fetched:?}");
        }
    }
    let reply = scene.connect_to_denied_site(HTTP_PORT).send_get(&hyphen.name).read_response();
    assert!(hyphen.served_page(&reply.page_json()), "{reply:?}");
    scene.sandbox.allow_only(&["my_bucket.s3.odd.example"]);
    scene.sandbox.curl(&format!("https://{}/", other.name)).run().assert_denied_by_alert();
    scene
        .connect_to_denied_site(HTTP_PORT)
        .send_get(&hyphen.name)
        .read_response()
        .assert_refused(403, "name_not_allowed");
    let hello = client_hello::hello_message(Some(hyphen.name.as_bytes()), &[]);
    scene.assert_alert(&client_hello::split_into_records(&hello, 7), ALERT_ACCESS_DENIED);
    scene.sandbox.assert_name_denied(&hyphen.name, "name_not_allowed");
    scene.assert_denied_site_unreached();
}

#[test]
fn over_ipv6_names_are_judged_the_same_way() {
    let scene = domain_scenario("six");
    let stage = &scene.sandbox.testbed;
    for (scheme, port) in [("http", HTTP_PORT), ("https", HTTPS_PORT)] {
        let url = format!("{scheme}://{}/", scene.allowed_site.name);
        let fetched = scene.sandbox.curl(&url).resolving_to(scene.denied_site.v6).run();
        assert!(scene.allowed_site.served_page(&fetched.page_json()), "{fetched:?}");
        let url = format!("{scheme}://{}/", scene.denied_site.name);
        let denied = scene.sandbox.curl(&url).resolving_to(scene.denied_site.v6).run();
        if port == HTTP_PORT {
            denied.assert_refused(403, "name_not_allowed")
        } else {
            denied.assert_denied_by_alert()
        }
    }
    assert_eq!(stage.named_internet().connection_count(scene.denied_site.v6), 0);
    scene.assert_denied_site_unreached();
}

#[test]
fn other_ports_and_other_protocols_are_judged_by_address_only() {
    let scene = domain_scenario("ports");
    let evil = scene.denied_site.v4.to_string();
    for port in [8080, 8443, 81, 444] {
        let url = format!("http://{}:{port}/", scene.allowed_site.name);
        let fetched = scene.sandbox.curl(&url).run();
        assert_eq!(
            fetched.exit_code,
            policy_testbed::named_internet::curl::EXIT_CONNECTION_REFUSED,
            "{port}: {fetched:?}"
        );
    }
    // QUIC is UDP.
    assert_eq!(
        scene.sandbox.probe_udp("1.1.1.1", HTTPS_PORT),
        policy_testbed::probe::ProbeResult::Prohibited
    );
    scene.sandbox.allow_only(&[&scene.allowed_site.name, "1.1.1.1", &evil]);
    assert_eq!(
        scene.sandbox.probe_udp("1.1.1.1", HTTPS_PORT),
        policy_testbed::probe::ProbeResult::Answered
    );
}

#[test]
fn two_sandboxes_keep_their_names_apart() {
    let (one, other) = (domain_scenario("one"), domain_scenario("two"));
    for (scene, foreign) in [(&one, &other), (&other, &one)] {
        let own = scene.sandbox.curl(&format!("https://{}/", scene.allowed_site.name)).run();
        assert!(scene.allowed_site.served_page(&own.page_json()), "{own:?}");
        let url = format!("https://{}/", foreign.allowed_site.name);
        scene.sandbox.curl(&url).run().assert_denied_by_alert();
        scene.sandbox.assert_name_denied(&foreign.allowed_site.name, "name_not_allowed");
        let id = &foreign.sandbox.id;
        let events = scene.sandbox.testbed.cli(&["events", "--sandbox", id, "-o", "json"]);
        let own = |event: &serde_json::Value| event["name"] != foreign.allowed_site.name;
        assert!(events.json_lines().iter().all(own), "{events:?}");
    }
}

#[test]
fn explain_says_what_happens_to_a_name_and_why() {
    let scene = domain_scenario("explained");
    let address = scene.denied_site.v4.to_string();
    let explain = |port: &str, host: &str| {
        let id = &scene.sandbox.id;
        let ran = scene
            .sandbox
            .testbed
            .cli(&["explain", id, &address, "--port", port, "--host", host, "-o", "json"]);
        (ran.exit_code, ran.json())
    };
    for port in ["80", "443"] {
        let (code, answer) = explain(port, &scene.allowed_site.name);
        assert_eq!((code, &answer["reason"]), (0, &json!("allow_name")), "{answer}");
        assert_eq!(answer["rule"]["entry"], scene.allowed_site.name, "{answer}");
        let (code, answer) = explain(port, &scene.denied_site.name);
        assert_eq!((code, &answer["reason"]), (3, &json!("name_not_allowed")), "{answer}");
        assert_eq!(answer["line"], 7);
    }
    assert_eq!(explain("8080", &scene.allowed_site.name).1["reason"], "deny_out");
}
