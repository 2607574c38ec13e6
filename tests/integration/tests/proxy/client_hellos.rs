//! Port 443: the proxy judges the name in a ClientHello in any encoding, and passes nothing else.

use std::io::Write as _;

use policy_testbed::{
    named_internet::{client_hello, raw_http::CloseKind},
    test_servers::HTTPS_PORT,
    testbed::{DomainScenario, OrFail as _, RESOLVER_CONFIG, SharedTestbed},
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

#[track_caller]
fn domain_scenario(name: &str) -> DomainScenario {
    DomainScenario::new(&TESTBED, name)
}

#[test]
fn other_protocols_on_port_443_are_reset() {
    let scene = domain_scenario("notls");
    let http = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.allowed_site.name);
    // An SSL 2 hello, an alert, application data, and an endless series of empty records.
    let endless = [22, 3, 1, 0, 0].repeat(4000);
    let others = [
        http.as_bytes(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x01\x00",
    ];
    for other in others {
        scene.assert_reset(other);
    }
    scene.assert_alert(&endless, client_hello::ALERT_INTERNAL_ERROR);
    scene.sandbox.wait_for_event("a denial", |event| {
        event["reason"] == "not_judgeable" && event["destinationPort"] == HTTPS_PORT
    });
    scene.assert_denied_site_unreached();
}

#[test]
fn without_a_name_the_address_decides() {
    let scene = domain_scenario("nameless");
    let hello = client_hello::split_into_records(&client_hello::hello_message(None, &[]), 500);
    scene.assert_alert(&hello, client_hello::ALERT_ACCESS_DENIED);
    let event =
        scene.sandbox.wait_for_event("the denial", |event| event["destinationPort"] == HTTPS_PORT);
    assert_eq!((&event["reason"], &event["line"]), (&json!("deny_out"), &json!(8)));
    assert!(event.get("name").is_none(), "{event}");
    scene
        .sandbox
        .curl(&format!("https://{}/", scene.denied_site.v4))
        .run()
        .assert_denied_by_alert();
    scene.assert_denied_site_unreached();
    // An allowed address bypasses the proxy, whatever name the client requests there.
    let evil = scene.denied_site.v4.to_string();
    scene.sandbox.allow_only(&[&scene.allowed_site.name, &evil]);
    let fetched = scene.sandbox.curl(&format!("https://{evil}/")).run();
    fetched.assert_from(scene.denied_site.v4);
    assert_eq!(fetched.page_json()["peer"], scene.sandbox.addresses()[0].to_string());
}

#[test]
fn a_hello_in_any_pieces_is_judged_by_its_name() {
    let scene = domain_scenario("pieces");
    let client = || {
        let config = scene.sandbox.testbed.named_internet().authority.client_config();
        let mut config = config.or_fail("a client");
        // These make the hello longer than a packet and a record can be.
        config.alpn_protocols = (0..400).map(|i| format!("a-protocol-{i:040}").into()).collect();
        config.alpn_protocols.push(b"http/1.1".to_vec());
        config
    };
    let mut short = client();
    short.alpn_protocols.clear();
    let mut medium = client();
    medium.alpn_protocols.truncate(40);
    for (config, size) in [(short, 1), (medium.clone(), 100), (medium, 16_000), (client(), 9_000)] {
        let mut talk = scene.connect_to_denied_site(HTTPS_PORT);
        let answer = client_hello::fetch_over_tls(
            talk.stream(),
            config,
            &scene.allowed_site.name,
            |stream, hello| {
                let hello = client_hello::resplit_records(&hello, size);
                if size == 1 {
                    client_hello::send_byte_by_byte(stream, &hello)
                } else {
                    stream.write_all(&hello)
                }
            },
        );
        let answer = answer.or_fail(&format!("a hello in records of {size} bytes"));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(
            scene.allowed_site.served_page(&serde_json::from_str(body).unwrap_or_default()),
            "{answer}"
        );
    }
    let name = Some(scene.denied_site.name.as_bytes());
    for (padding, size) in [(0, 1), (0, 50), (2_000, 700), (20_000, client_hello::MAX_RECORD_BYTES)]
    {
        let padding = (client_hello::EXTENSION_PADDING, vec![0; padding]);
        let hello =
            client_hello::split_into_records(&client_hello::hello_message(name, &[padding]), size);
        scene.assert_alert(&hello, client_hello::ALERT_ACCESS_DENIED);
        let mut talk = scene.connect_to_denied_site(HTTPS_PORT);
        let _ = client_hello::send_byte_by_byte(talk.stream(), &hello[..hello.len().min(2000)]);
        talk.send(hello.get(2000..).unwrap_or_default());
        assert_eq!(talk.read_to_close(), CloseKind::Clean);
        talk.assert_alert(client_hello::ALERT_ACCESS_DENIED);
    }
    scene.sandbox.assert_name_denied(&scene.denied_site.name, "name_not_allowed");
    scene.assert_denied_site_unreached();
}

#[test]
fn of_an_encrypted_hello_the_outer_name_is_judged() {
    let scene = domain_scenario("outer");
    let with_ech = |name: &str| {
        let more = [client_hello::ech_extension(300)];
        client_hello::split_into_records(
            &client_hello::hello_message(Some(name.as_bytes()), &more),
            client_hello::MAX_RECORD_BYTES,
        )
    };
    scene.assert_alert(&with_ech(&scene.denied_site.name), client_hello::ALERT_ACCESS_DENIED);
    let mut talk = scene.connect_to_denied_site(HTTPS_PORT);
    talk.send(with_ech(&scene.allowed_site.name));
    client_hello::expect_handshake_record(talk.stream()).or_fail("the shop's answer");
    scene.assert_denied_site_unreached();
}
