//! Known ways around filters that judge by name: each ends at the server that has the allowed name,
//! or nowhere.

use std::net::IpAddr;

use policy_tests::{
    names::{
        Site,
        hello::{self, ACCESS_DENIED, INTERNAL_ERROR},
    },
    server::{HTTP, HTTPS},
    stage::{NameScene, RESOLVERS, Shared, ip},
};
use serde_json::json;

static STAGE: Shared = Shared::with_names(RESOLVERS);

#[track_caller]
fn scene(name: &str) -> NameScene {
    NameScene::set(&STAGE, name)
}

#[test]
fn forged_sni_or_host_towards_an_attacker_reaches_the_real_server() {
    let scene = scene("forged");
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/", scene.shop.name);
        for to in scene.evil.addresses() {
            let fetched = scene.sandbox.curl(&url).misled_to(to).run();
            let page = fetched.page();
            assert!(scene.shop.shows(&page), "{scheme} by way of {to}: {fetched:?}");
            assert_eq!(page["host"], scene.shop.name, "{page}");
            let line = format!("{to} {}", scene.shop.name);
            let fetched = scene.sandbox.curl(&url).with_hosts(&line).run();
            assert!(scene.shop.shows(&fetched.page()), "a hosts file: {fetched:?}");
        }
    }
    scene.evil_saw_nothing();
}

#[test]
fn a_name_that_is_not_allowed_is_refused_legibly_and_nobody_hears_of_it() {
    let scene = scene("denied");
    let name = &scene.evil.name;
    scene.sandbox.curl(&format!("https://{name}/")).run().is_denied();
    let fetched = scene.sandbox.curl(&format!("http://{name}/")).run();
    fetched.is_refused(403, "name_not_allowed");
    for port in [HTTP, HTTPS] {
        let event = scene.sandbox.event("the denial", |event| {
            event["name"] == *name && event["destinationPort"] == port
        });
        assert_eq!((&event["reason"], &event["line"]), (&json!("name_not_allowed"), &json!(7)));
        assert!(event["destination"].as_str().is_some_and(|it| is_address_of(&scene.evil, it)));
        assert_eq!(event["protocol"], "tcp");
    }
    let metrics = scene.sandbox.stage.request("GET", "/metrics", &json!(null)).body;
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
    scene.evil_saw_nothing();
}

fn is_address_of(site: &Site, text: &str) -> bool {
    text.parse::<IpAddr>().is_ok_and(|address| site.addresses().contains(&address))
}

#[test]
fn a_name_that_is_none_is_refused() {
    let scene = scene("invalid");
    scene.sandbox.may_only_reach(&["*"]);
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
        let hello = hello::in_records(&hello::asking_for(Some(name.as_bytes()), &[]), 1000);
        let alert = if name.is_empty() { INTERNAL_ERROR } else { ACCESS_DENIED };
        scene.is_alerted(&hello, alert);
        let mut talk = scene.talk(HTTP);
        let reply = talk.get(name).read_reply();
        assert!(
            reply.as_ref().ok().is_none_or(|reply| (400..500).contains(&reply.status)),
            "{reply:?}"
        );
    }
    for literal in ["203.0.113.10", "::1", "[::1]", "169.254.169.254", "0x7f000001", "127.1"] {
        let hello = hello::asking_for(Some(literal.as_bytes()), &[]);
        scene.is_alerted(&hello::in_records(&hello, 1000), ACCESS_DENIED);
    }
    scene.sandbox.event("a denial", |event| event["reason"] == "invalid_name");
    scene.evil_saw_nothing();
    assert_eq!(scene.sandbox.stage.names().visits(ip("169.254.169.254")), 0);
}

#[test]
fn a_name_may_be_written_in_every_way() {
    let scene = scene("spelled");
    let (v4, name) = (scene.evil.v4, &scene.shop.name);
    let stage = &scene.sandbox.stage;
    let idna = stage.site("xn--bcher-kva.spelled.example");
    scene.sandbox.may_only_reach(&["SPELLED.example.", "b\u{fc}cher.spelled.example"]);
    for host in [name.to_uppercase(), format!("{name}."), format!("{name}:80")] {
        let reply = scene.talk(HTTP).get(&host).reply();
        assert!(scene.shop.shows(&reply.page()), "{host}: {reply:?}");
    }
    for host in [name.to_uppercase(), format!("{name}.")] {
        let fetched = scene.sandbox.curl(&format!("https://{host}/")).misled_to(v4).run();
        assert!(scene.shop.shows(&fetched.page()), "{host}: {fetched:?}");
    }
    let fetched = scene.sandbox.curl(&format!("https://{}/", idna.name)).misled_to(v4).run();
    assert!(idna.shows(&fetched.page()), "{fetched:?}");
    scene.evil_saw_nothing();
}

#[test]
fn exact_names_match_themselves_and_wildcards_what_is_below() {
    let scene = scene("patterns");
    let stage = &scene.sandbox.stage;
    let deep = stage.site("a.b.wild.patterns.example");
    let wild = stage.site("www.wild.patterns.example");
    let apex = stage.site("wild.patterns.example");
    let below = stage.site("below.patterns.example");
    let lookalike = stage.site("notwild.patterns.example");
    let allowed = [scene.shop.name.as_str(), "*.wild.patterns.example"];
    scene.sandbox.may_only_reach(&allowed);
    let fetch = |site: &Site| {
        let https = scene.sandbox.curl(&format!("https://{}/", site.name)).run();
        let http = scene.sandbox.curl(&format!("http://{}/", site.name)).run();
        (https, http)
    };
    for site in [&scene.shop, &deep, &wild] {
        let (https, http) = fetch(site);
        assert!(site.shows(&https.page()) && site.shows(&http.page()), "{https:?}");
    }
    for site in [&apex, &below, &lookalike, &scene.evil] {
        let (https, http) = fetch(site);
        https.is_denied();
        http.is_refused(403, "name_not_allowed");
    }
    scene.evil_saw_nothing();
    scene.sandbox.may_only_reach(&["*"]);
    let (https, http) = fetch(&scene.evil);
    assert!(scene.evil.shows(&https.page()) && scene.evil.shows(&http.page()));
}

#[test]
fn underscores_and_outer_hyphens_are_in_use() {
    let scene = scene("odd");
    let stage = &scene.sandbox.stage;
    let bucket = stage.site("my_bucket.s3.odd.example");
    let other = stage.site("other_bucket.s3.odd.example");
    let hyphen = stage.site("-r3---sn-.odd.example");
    for allowed in [&["my_bucket.s3.odd.example"][..], &["*.odd.example"]] {
        scene.sandbox.may_only_reach(allowed);
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{}/", bucket.name);
            let fetched = scene.sandbox.curl(&url).misled_to(scene.evil.v4).run();
            assert!(bucket.shows(&fetched.page()), "{allowed:?} {scheme}: {fetched:?}");
        }
    }
    let reply = scene.talk(HTTP).get(&hyphen.name).reply();
    assert!(hyphen.shows(&reply.page()), "{reply:?}");
    scene.sandbox.may_only_reach(&["my_bucket.s3.odd.example"]);
    scene.sandbox.curl(&format!("https://{}/", other.name)).run().is_denied();
    scene.talk(HTTP).get(&hyphen.name).reply().is_refused(403, "name_not_allowed");
    let hello = hello::asking_for(Some(hyphen.name.as_bytes()), &[]);
    scene.is_alerted(&hello::in_records(&hello, 7), ACCESS_DENIED);
    scene.sandbox.was_denied(&hyphen.name, "name_not_allowed");
    scene.evil_saw_nothing();
}

#[test]
fn over_ipv6_names_are_judged_the_same_way() {
    let scene = scene("six");
    let stage = &scene.sandbox.stage;
    for (scheme, port) in [("http", HTTP), ("https", HTTPS)] {
        let url = format!("{scheme}://{}/", scene.shop.name);
        let fetched = scene.sandbox.curl(&url).misled_to(scene.evil.v6).run();
        assert!(scene.shop.shows(&fetched.page()), "{fetched:?}");
        let url = format!("{scheme}://{}/", scene.evil.name);
        let denied = scene.sandbox.curl(&url).misled_to(scene.evil.v6).run();
        if port == HTTP { denied.is_refused(403, "name_not_allowed") } else { denied.is_denied() }
    }
    assert_eq!(stage.names().visits(scene.evil.v6), 0);
    scene.evil_saw_nothing();
}

#[test]
fn other_ports_and_other_protocols_are_judged_by_address_only() {
    let scene = scene("ports");
    let evil = scene.evil.v4.to_string();
    for port in [8080, 8443, 81, 444] {
        let url = format!("http://{}:{port}/", scene.shop.name);
        let fetched = scene.sandbox.curl(&url).run();
        assert_eq!(fetched.exit, policy_tests::names::curl::REFUSED, "{port}: {fetched:?}");
    }
    // QUIC is UDP.
    assert_eq!(scene.sandbox.udp("1.1.1.1", HTTPS), policy_tests::probe::Seen::Prohibited);
    scene.sandbox.may_only_reach(&[&scene.shop.name, "1.1.1.1", &evil]);
    assert_eq!(scene.sandbox.udp("1.1.1.1", HTTPS), policy_tests::probe::Seen::Answered);
}

#[test]
fn two_sandboxes_keep_their_names_apart() {
    let (one, other) = (scene("one"), scene("two"));
    for (scene, foreign) in [(&one, &other), (&other, &one)] {
        let own = scene.sandbox.curl(&format!("https://{}/", scene.shop.name)).run();
        assert!(scene.shop.shows(&own.page()), "{own:?}");
        let url = format!("https://{}/", foreign.shop.name);
        scene.sandbox.curl(&url).run().is_denied();
        scene.sandbox.was_denied(&foreign.shop.name, "name_not_allowed");
        let id = &foreign.sandbox.id;
        let events = scene.sandbox.stage.cli(&["events", "--sandbox", id, "-o", "json"]);
        let own = |event: &serde_json::Value| event["name"] != foreign.shop.name;
        assert!(events.json_lines().iter().all(own), "{events:?}");
    }
}

#[test]
fn explain_says_what_happens_to_a_name_and_why() {
    let scene = scene("explained");
    let address = scene.evil.v4.to_string();
    let explain = |port: &str, host: &str| {
        let id = &scene.sandbox.id;
        let ran = scene
            .sandbox
            .stage
            .cli(&["explain", id, &address, "--port", port, "--host", host, "-o", "json"]);
        (ran.code, ran.json())
    };
    for port in ["80", "443"] {
        let (code, answer) = explain(port, &scene.shop.name);
        assert_eq!((code, &answer["reason"]), (0, &json!("allow_name")), "{answer}");
        assert_eq!(answer["rule"]["entry"], scene.shop.name, "{answer}");
        let (code, answer) = explain(port, &scene.evil.name);
        assert_eq!((code, &answer["reason"]), (3, &json!("name_not_allowed")), "{answer}");
        assert_eq!(answer["line"], 7);
    }
    assert_eq!(explain("8080", &scene.shop.name).1["reason"], "deny_out");
}
