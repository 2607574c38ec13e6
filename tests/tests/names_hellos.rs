//! Port 443: the name in a ClientHello is judged, however it comes, and nothing else goes through.

use std::io::Write as _;

use policy_tests::{
    names::{hello, raw::Ending},
    server::HTTPS,
    stage::{NameScene, OrFail as _, RESOLVERS, Shared},
};
use serde_json::json;

static STAGE: Shared = Shared::with_names(RESOLVERS);

#[track_caller]
fn scene(name: &str) -> NameScene {
    NameScene::set(&STAGE, name)
}

#[test]
fn other_protocols_on_port_443_are_reset() {
    let scene = scene("notls");
    let http = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.shop.name);
    // An old SSL 2 hello, an alert, application data, and a record of no length without end.
    let endless = [22, 3, 1, 0, 0].repeat(4000);
    let others = [
        http.as_bytes(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x01\x00",
    ];
    for other in others {
        scene.is_reset(other);
    }
    scene.is_alerted(&endless, hello::INTERNAL_ERROR);
    scene.sandbox.event("a denial", |event| {
        event["reason"] == "not_judgeable" && event["destinationPort"] == HTTPS
    });
    scene.evil_saw_nothing();
}

#[test]
fn without_a_name_the_address_decides() {
    let scene = scene("nameless");
    let hello = hello::in_records(&hello::asking_for(None, &[]), 500);
    scene.is_alerted(&hello, hello::ACCESS_DENIED);
    let event = scene.sandbox.event("the denial", |event| event["destinationPort"] == HTTPS);
    assert_eq!((&event["reason"], &event["line"]), (&json!("deny_out"), &json!(8)));
    assert!(event.get("name").is_none(), "{event}");
    scene.sandbox.curl(&format!("https://{}/", scene.evil.v4)).run().is_denied();
    scene.evil_saw_nothing();
    // An allowed address goes past the proxy, whatever name is asked for there.
    let evil = scene.evil.v4.to_string();
    scene.sandbox.may_only_reach(&[&scene.shop.name, &evil]);
    let fetched = scene.sandbox.curl(&format!("https://{evil}/")).run();
    fetched.is_from(scene.evil.v4);
    assert_eq!(fetched.page()["peer"], scene.sandbox.addresses()[0].to_string());
}

#[test]
fn a_hello_in_any_pieces_is_judged_by_its_name() {
    let scene = scene("pieces");
    let client = || {
        let config = scene.sandbox.stage.names().authority.client();
        let mut config = config.or_fail("a client");
        // With these the hello is longer than a packet and a record can be.
        config.alpn_protocols = (0..400).map(|i| format!("a-protocol-{i:040}").into()).collect();
        config.alpn_protocols.push(b"http/1.1".to_vec());
        config
    };
    let mut short = client();
    short.alpn_protocols.clear();
    let mut medium = client();
    medium.alpn_protocols.truncate(40);
    for (config, size) in [(short, 1), (medium.clone(), 100), (medium, 16_000), (client(), 9_000)] {
        let mut talk = scene.talk(HTTPS);
        let answer = hello::visit(talk.stream(), config, &scene.shop.name, |stream, hello| {
            let hello = hello::cut_anew(&hello, size);
            if size == 1 { hello::byte_by_byte(stream, &hello) } else { stream.write_all(&hello) }
        });
        let answer = answer.or_fail(&format!("a hello in records of {size} bytes"));
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(scene.shop.shows(&serde_json::from_str(body).unwrap_or_default()), "{answer}");
    }
    let name = Some(scene.evil.name.as_bytes());
    for (padding, size) in [(0, 1), (0, 50), (2_000, 700), (20_000, hello::RECORD)] {
        let padding = (hello::PADDING, vec![0; padding]);
        let hello = hello::in_records(&hello::asking_for(name, &[padding]), size);
        scene.is_alerted(&hello, hello::ACCESS_DENIED);
        let mut talk = scene.talk(HTTPS);
        let _ = hello::byte_by_byte(talk.stream(), &hello[..hello.len().min(2000)]);
        talk.say(hello.get(2000..).unwrap_or_default());
        assert_eq!(talk.ending(), Ending::Closed);
        talk.is_alert(hello::ACCESS_DENIED);
    }
    scene.sandbox.was_denied(&scene.evil.name, "name_not_allowed");
    scene.evil_saw_nothing();
}

#[test]
fn of_an_encrypted_hello_the_outer_name_is_judged() {
    let scene = scene("outer");
    let with_ech = |name: &str| {
        let more = [hello::encrypted_inner(300)];
        hello::in_records(&hello::asking_for(Some(name.as_bytes()), &more), hello::RECORD)
    };
    scene.is_alerted(&with_ech(&scene.evil.name), hello::ACCESS_DENIED);
    let mut talk = scene.talk(HTTPS);
    talk.say(with_ech(&scene.shop.name));
    hello::is_answered(talk.stream()).or_fail("the shop's answer");
    scene.evil_saw_nothing();
}
