//! The unmodified E2B SDKs: their calls have the documented effects.
//!
//! Every test runs `tests/sdk/<program>.{py,mjs}` with each SDK. It observes the traffic from
//! inside the sandbox, and from the internet at the sandbox's public URL.

mod sdk_session;
mod sdk_testbed;

use policy_testbed::{
    named_internet::curl::CurlResult,
    probe::{self, ProbeResult},
    sdk::E2bSdk,
    test_servers,
};
use serde_json::json;

use self::sdk_session::SdkSession;

/// The port of the service in the programs.
const SERVICE_PORT: u16 = 8080;

#[test]
fn no_internet_access() {
    SdkSession::for_each_sdk("no_internet", |scene| {
        for address in ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "169.254.169.254"] {
            scene.sandbox().assert_refused(address);
        }
    });
}

#[test]
fn deny_all_but_a_list() {
    SdkSession::for_each_sdk("allow_list", |scene| {
        let sandbox = scene.sandbox();
        for address in ["1.1.1.1", "8.8.8.8", "8.8.8.9"] {
            sandbox.assert_reaches(address);
        }
        for address in ["203.0.113.10", "2606:4700:4700::1111", "10.99.0.1"] {
            sandbox.assert_refused(address);
        }
    });
}

#[test]
fn deny_one() {
    SdkSession::for_each_sdk("deny_list", |scene| {
        let sandbox = scene.sandbox();
        sandbox.assert_refused("8.8.8.8");
        for address in ["8.8.8.9", "1.1.1.1", "2001:db8:1::1"] {
            sandbox.assert_reaches(address);
        }
    });
}

#[test]
fn allowed_beats_denied() {
    SdkSession::for_each_sdk("priority", |scene| {
        let sandbox = scene.sandbox();
        sandbox.assert_reaches("203.0.113.10");
        sandbox.assert_refused("203.0.113.11");
        sandbox.assert_reaches("198.51.100.7");
    });
}

#[test]
fn deny_all_but_a_name() {
    SdkSession::for_each_sdk("domains", |scene| {
        assert_site_reachable(scene, "api.example.com");
        assert_site_denied(scene, "evil.test");
        // The nameserver is reachable, and nothing else at its address.
        assert_eq!(
            scene.sandbox().probe_udp("8.8.8.8", test_servers::DNS_PORT),
            ProbeResult::Answered
        );
        scene.sandbox().assert_refused("203.0.113.10");
    });
}

#[test]
fn deny_all_but_a_wildcard() {
    SdkSession::for_each_sdk("wildcard", |scene| {
        assert_site_reachable(scene, "a.b.mydomain.com");
        assert_site_denied(scene, "mydomain.com");
    });
}

#[test]
fn deny_all_but_names_and_an_address() {
    SdkSession::for_each_sdk("mixed", |scene| {
        assert_site_reachable(scene, "api.example.com");
        assert_site_reachable(scene, "raw.github.com");
        assert_site_denied(scene, "github.com");
        assert_site_denied(scene, "evil.test");
        scene.sandbox().assert_reaches("203.0.113.10");
        scene.sandbox().assert_refused("203.0.113.11");
    });
}

#[test]
fn a_public_url() {
    SdkSession::for_each_sdk("public_url", |scene| {
        assert_sandbox_not_found(&scene.curl_public_url(&[]));
        let service = scene.start_service(SERVICE_PORT);
        let fetched = scene.curl_public_url(&[]);
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        assert_eq!(fetched.page_json()["target"], "/here");
        assert_eq!(fetched.page_json()["headers"]["host"], scene.report_field("host"));
        assert_eq!(service.request_count(), 1);
        let unknown =
            scene.report_field("host").replace(scene.report_field("sandboxID"), "nosuchsandbox");
        assert_sandbox_not_found(&scene.curl_public_host(&unknown, &[]));
    });
}

#[test]
fn a_private_url_needs_the_token() {
    SdkSession::for_each_sdk("private_url", |scene| {
        let service = scene.start_service(SERVICE_PORT);
        for wrong in ["x-other: header", "e2b-traffic-access-token: wrong"] {
            let fetched = scene.curl_public_url(&["-H", wrong]);
            assert_eq!(fetched.status, 403, "{wrong}: {}", fetched.text());
        }
        assert_eq!(service.request_count(), 0);
        let token = format!("e2b-traffic-access-token: {}", scene.report_field("token"));
        let fetched = scene.curl_public_url(&["-H", &token]);
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        assert_eq!(service.request_count(), 1);
        assert!(
            !fetched.text().contains(scene.report_field("token")),
            "the service sees the token"
        );
    });
}

#[test]
fn a_service_sees_the_masked_host() {
    SdkSession::for_each_sdk("mask_host", |scene| {
        let _service = scene.start_service(SERVICE_PORT);
        let fetched = scene.curl_public_url(&[]);
        assert_eq!(fetched.status, 200, "{}", fetched.text());
        assert_eq!(fetched.page_json()["headers"]["host"], "localhost:8080");
        assert_eq!(fetched.page_json()["headers"]["x-forwarded-host"], scene.report_field("host"));
    });
}

#[test]
fn an_update_replaces_the_rules_of_a_running_sandbox() {
    SdkSession::for_each_sdk("update_network", |scene| {
        let mut connection = scene.sandbox().connect_echo("8.8.8.8");
        assert!(probe::echo(&mut connection, b"hello").is_ok());

        scene.resume();
        scene.sandbox().assert_reaches("1.1.1.1");
        scene.sandbox().assert_refused("8.8.8.8");
        let cut = probe::echo(&mut connection, b"still there?")
            .map_err(|error| probe::result_from_error(&error));
        assert_eq!(cut, Err(ProbeResult::Refused), "a connection from before");

        scene.resume();
        scene.sandbox().assert_refused("1.1.1.1");
        scene.sandbox().assert_reaches("8.8.8.8");

        scene.resume();
        scene.sandbox().assert_refused("1.1.1.1");
        scene.sandbox().assert_refused("8.8.8.8");

        scene.resume();
        scene.sandbox().assert_reaches("1.1.1.1");
        scene.sandbox().assert_reaches("8.8.8.8");
    });
}

#[test]
fn a_sandbox_is_found_connected_to_prolonged_and_killed() {
    SdkSession::for_each_sdk("life", |scene| {
        assert_eq!(scene.last_report["listed"], true);
        assert_eq!(scene.last_report["connected"], scene.last_report["sandboxID"]);
        assert_eq!(scene.last_report["connectedHost"], scene.last_report["host"]);
        assert!(
            scene.last_report["connectedToken"] == scene.last_report["token"],
            "the tokens differ"
        );
        assert_eq!(scene.last_report["state"], "running");
        assert_eq!(scene.last_report["metadata"]["purpose"], "a test");
        assert_eq!(scene.last_report["template"], "base");
        let seconds = scene.last_report["seconds"].as_f64();
        assert!(seconds.is_some_and(|left| (500.0..=600.5).contains(&left)), "{seconds:?}");

        scene.resume();
        // Nothing listens in the sandbox: the gateway itself reports that it is running.
        assert_eq!(scene.last_report["running"], true);

        scene.resume();
        let told = &scene.last_report;
        assert_eq!((&told["killed"], &told["killedAgain"]), (&true.into(), &false.into()));
        assert_eq!((&told["running"], &told["listed"]), (&false.into(), &false.into()));
        for refused in ["connecting", "updating", "asking"] {
            let complaint = scene.report_field(refused);
            assert!(
                complaint.contains("NotFound") && complaint.contains("not found"),
                "{complaint}"
            );
        }
    });
}

#[test]
fn what_the_agent_refuses_is_an_exception_with_its_words() {
    SdkSession::for_each_sdk("refused", |scene| {
        for (attempt, words) in [
            ("deniedName", ["denyOut", "example.com"]),
            ("nameAlone", ["allowOut", "0.0.0.0/0"]),
            ("noAddress", ["allowOut", "1.2.3"]),
            ("wrongKey", ["Auth", "key"]),
        ] {
            let complaint = scene.report_field(attempt);
            assert!(words.iter().all(|word| complaint.contains(word)), "{attempt}: {complaint}");
        }
        // The network configuration in force stays.
        scene.sandbox().assert_refused("8.8.8.8");
        scene.sandbox().assert_reaches("1.1.1.1");
    });
}

/// The older SDK has neither secrets nor rules.
#[test]
fn secrets_and_the_rules_that_refer_to_them() {
    for sdk in [E2bSdk::Python, E2bSdk::JavaScript] {
        let mut scene = SdkSession::start(sdk, "rule_secrets");
        let told = &scene.last_report;
        let name = told["names"][0].as_str().unwrap_or_default().to_owned();
        assert_eq!(told["names"][1], name.as_str(), "{told}");
        assert_eq!(told["versions"], json!([1, 2, 2]), "{told}");
        assert_eq!(told["metadata"], json!({ "owner": "web" }), "{told}");
        assert_eq!((&told["listed"], &told["exists"]), (&json!(true), &json!(true)), "{told}");
        assert_eq!(told["header"], format!("Bearer ${{e2b.secrets.{name}}}"), "{told}");
        let wrong = scene.report_field("wrong");
        assert!(wrong.contains("is not a valid domain name."), "{wrong}");
        assert_site_denied(&scene, "evil.test");
        assert_site_reachable(&scene, "github.com");

        scene.resume();
        let told = &scene.last_report;
        assert_eq!((&told["rules"], &told["exists"]), (&json!(false), &json!(false)), "{told}");
        assert_eq!(told["destroyed"], json!([true, false]), "{told}");
        assert!(scene.report_field("asking").contains("NotFound"), "{told}");
        scene.finish();
    }
}

/// Asserts that pages of the site can be fetched over both schemes.
#[track_caller]
fn assert_site_reachable(scene: &SdkSession, site: &str) {
    for scheme in ["http", "https"] {
        let fetched = scene.curl_site(scheme, site);
        assert!(
            scene.testbed.site_by_name(site).served_page(&fetched.page_json()),
            "{scheme}://{site}: {fetched:?}"
        );
    }
}

/// Asserts that no page of the site can be fetched.
#[track_caller]
fn assert_site_denied(scene: &SdkSession, site: &str) {
    scene.curl_site("https", site).assert_denied_by_alert();
    scene.curl_site("http", site).assert_refused(403, "name_not_allowed");
}

/// Asserts that the gateway reports that there is no such sandbox.
#[track_caller]
fn assert_sandbox_not_found(fetched: &CurlResult) {
    assert_eq!(fetched.status, 502, "{}", fetched.text());
}
