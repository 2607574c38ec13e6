//! The E2B SDKs, unmodified: what their users write has the effect that the documentation promises.
//!
//! Every test runs `tests/sdk/<program>.{py,mjs}` with each SDK, and looks at the wire from inside
//! the sandbox, and from the internet at its public URL.

use policy_tests::{
    names::curl::Fetched,
    probe::{self, Seen},
    sdk::Scene,
    server,
};

/// Where the programs say that the service listens.
const PORT: u16 = 8080;

#[test]
fn no_internet_access() {
    Scene::each("no_internet", |scene| {
        for address in ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "169.254.169.254"] {
            scene.sandbox().is_refused(address);
        }
    });
}

#[test]
fn deny_all_but_a_list() {
    Scene::each("allow_list", |scene| {
        let sandbox = scene.sandbox();
        for address in ["1.1.1.1", "8.8.8.8", "8.8.8.9"] {
            sandbox.reaches(address);
        }
        for address in ["203.0.113.10", "2606:4700:4700::1111", "10.99.0.1"] {
            sandbox.is_refused(address);
        }
    });
}

#[test]
fn deny_one() {
    Scene::each("deny_list", |scene| {
        let sandbox = scene.sandbox();
        sandbox.is_refused("8.8.8.8");
        for address in ["8.8.8.9", "1.1.1.1", "2001:db8:1::1"] {
            sandbox.reaches(address);
        }
    });
}

#[test]
fn allowed_beats_denied() {
    Scene::each("priority", |scene| {
        let sandbox = scene.sandbox();
        sandbox.reaches("203.0.113.10");
        sandbox.is_refused("203.0.113.11");
        sandbox.reaches("198.51.100.7");
    });
}

#[test]
fn deny_all_but_a_name() {
    Scene::each("domains", |scene| {
        is_shown(scene, "api.example.com");
        is_kept_from(scene, "evil.test");
        // By which the sandbox learns addresses; and nothing else there.
        assert_eq!(scene.sandbox().udp("8.8.8.8", server::DNS), Seen::Answered);
        scene.sandbox().is_refused("203.0.113.10");
    });
}

#[test]
fn deny_all_but_a_wildcard() {
    Scene::each("wildcard", |scene| {
        is_shown(scene, "a.b.mydomain.com");
        is_kept_from(scene, "mydomain.com");
    });
}

#[test]
fn deny_all_but_names_and_an_address() {
    Scene::each("mixed", |scene| {
        is_shown(scene, "api.example.com");
        is_shown(scene, "raw.github.com");
        is_kept_from(scene, "github.com");
        is_kept_from(scene, "evil.test");
        scene.sandbox().reaches("203.0.113.10");
        scene.sandbox().is_refused("203.0.113.11");
    });
}

#[test]
fn a_public_url() {
    Scene::each("public_url", |scene| {
        is_not_there(&scene.visit(&[]));
        let service = scene.serve(PORT);
        let fetched = scene.visit(&[]);
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        assert_eq!(fetched.page()["target"], "/here");
        assert_eq!(fetched.page()["headers"]["host"], scene.text("host"));
        assert_eq!(service.requests(), 1);
        let unknown = scene.text("host").replace(scene.text("sandboxID"), "nosuchsandbox");
        is_not_there(&scene.visit_host(&unknown, &[]));
    });
}

#[test]
fn a_private_url_needs_the_token() {
    Scene::each("private_url", |scene| {
        let service = scene.serve(PORT);
        for wrong in ["x-other: header", "e2b-traffic-access-token: wrong"] {
            let fetched = scene.visit(&["-H", wrong]);
            assert_eq!(fetched.status, 403, "{wrong}: {}", fetched.text());
        }
        assert_eq!(service.requests(), 0);
        let token = format!("e2b-traffic-access-token: {}", scene.text("token"));
        let fetched = scene.visit(&["-H", &token]);
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        assert_eq!(service.requests(), 1);
        assert!(!fetched.text().contains(scene.text("token")), "the service sees the token");
    });
}

#[test]
fn a_service_sees_the_masked_host() {
    Scene::each("mask_host", |scene| {
        let _service = scene.serve(PORT);
        let fetched = scene.visit(&[]);
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        assert_eq!(fetched.page()["headers"]["host"], "localhost:8080");
        assert_eq!(fetched.page()["headers"]["x-forwarded-host"], scene.text("host"));
    });
}

#[test]
fn an_update_replaces_the_rules_of_a_running_sandbox() {
    Scene::each("update_network", |scene| {
        let mut connection = scene.sandbox().connection("8.8.8.8");
        assert!(probe::echo(&mut connection, b"hello").is_ok());

        scene.go_on();
        scene.sandbox().reaches("1.1.1.1");
        scene.sandbox().is_refused("8.8.8.8");
        let cut =
            probe::echo(&mut connection, b"still there?").map_err(|error| probe::seen(&error));
        assert_eq!(cut, Err(Seen::Refused), "a connection from before");

        scene.go_on();
        scene.sandbox().is_refused("1.1.1.1");
        scene.sandbox().reaches("8.8.8.8");

        scene.go_on();
        scene.sandbox().is_refused("1.1.1.1");
        scene.sandbox().is_refused("8.8.8.8");

        scene.go_on();
        scene.sandbox().reaches("1.1.1.1");
        scene.sandbox().reaches("8.8.8.8");
    });
}

#[test]
fn a_sandbox_is_found_connected_to_prolonged_and_killed() {
    Scene::each("life", |scene| {
        assert_eq!(scene.told["listed"], true);
        assert_eq!(scene.told["connected"], scene.told["sandboxID"]);
        assert_eq!(scene.told["connectedHost"], scene.told["host"]);
        assert!(scene.told["connectedToken"] == scene.told["token"], "the tokens differ");
        assert_eq!(scene.told["state"], "running");
        assert_eq!(scene.told["metadata"]["purpose"], "a test");
        assert_eq!(scene.told["template"], "base");
        let seconds = scene.told["seconds"].as_f64();
        assert!(seconds.is_some_and(|left| (500.0..=600.5).contains(&left)), "{seconds:?}");

        scene.go_on();
        // Nothing listens in it: the gateway answers that it lives.
        assert_eq!(scene.told["running"], true);

        scene.go_on();
        let told = &scene.told;
        assert_eq!((&told["killed"], &told["killedAgain"]), (&true.into(), &false.into()));
        assert_eq!((&told["running"], &told["listed"]), (&false.into(), &false.into()));
        for refused in ["connecting", "updating", "asking"] {
            let complaint = scene.text(refused);
            assert!(
                complaint.contains("NotFound") && complaint.contains("not found"),
                "{complaint}"
            );
        }
    });
}

#[test]
fn what_the_agent_refuses_is_an_exception_with_its_words() {
    Scene::each("refused", |scene| {
        for (attempt, words) in [
            ("deniedName", ["denyOut", "example.com"]),
            ("nameAlone", ["allowOut", "0.0.0.0/0"]),
            ("noAddress", ["allowOut", "1.2.3"]),
            ("wrongKey", ["Auth", "key"]),
        ] {
            let complaint = scene.text(attempt);
            assert!(words.iter().all(|word| complaint.contains(word)), "{attempt}: {complaint}");
        }
        // The network in force stays.
        scene.sandbox().is_refused("8.8.8.8");
        scene.sandbox().reaches("1.1.1.1");
    });
}

/// Pages of the site come through by both schemes.
#[track_caller]
fn is_shown(scene: &Scene, site: &str) {
    for scheme in ["http", "https"] {
        let fetched = scene.fetch(scheme, site);
        assert!(scene.grounds.site(site).shows(&fetched.page()), "{scheme}://{site}: {fetched:?}");
    }
}

/// No page of the site comes through.
#[track_caller]
fn is_kept_from(scene: &Scene, site: &str) {
    scene.fetch("https", site).is_denied();
    scene.fetch("http", site).is_refused(403, "name_not_allowed");
}

/// The gateway says that nobody is there.
#[track_caller]
fn is_not_there(fetched: &Fetched) {
    assert_eq!(fetched.status, 502, "{}", fetched.text());
}
