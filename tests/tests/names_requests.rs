//! Port 80: every request is judged by the name that it asks for, and a request whose name is not
//! certain goes nowhere.

use policy_tests::{
    names::hello,
    server::HTTP,
    stage::{NameScene, OrFail as _, RESOLVERS, Shared},
};

static STAGE: Shared = Shared::with_names(RESOLVERS);

#[track_caller]
fn scene(name: &str) -> NameScene {
    NameScene::set(&STAGE, name)
}

#[test]
fn each_request_of_a_kept_connection_is_judged() {
    let scene = scene("kept");
    let mut talk = scene.talk(HTTP);
    for _ in 0..2 {
        let page = talk.get(&scene.shop.name).reply();
        assert!(scene.shop.shows(&page.page()), "{page:?}");
        let page = talk.get(&scene.news.name).reply();
        assert!(scene.news.shows(&page.page()), "{page:?}");
    }
    talk.get(&scene.evil.name).reply().is_refused(403, "name_not_allowed");
    scene.sandbox.was_denied(&scene.evil.name, "name_not_allowed");
    scene.evil_saw_nothing();
}

#[test]
fn requests_sent_at_once_are_judged_one_by_one() {
    let scene = scene("pipelined");
    let names = [&scene.shop.name, &scene.news.name, &scene.evil.name, &scene.shop.name];
    let requests: String =
        names.iter().map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).collect();
    let mut talk = scene.talk(HTTP);
    talk.say(requests);
    assert!(scene.shop.shows(&talk.reply().page()));
    assert!(scene.news.shows(&talk.reply().page()));
    talk.reply().is_refused(403, "name_not_allowed");
    scene.evil_saw_nothing();
}

#[test]
fn a_request_that_names_several_hosts_or_none_that_can_be_judged_is_refused() {
    let scene = scene("several");
    let (shop, evil) = (&scene.shop.name, &scene.evil.name);
    let cases = [
        (format!("GET / HTTP/1.1\r\nHost: {shop}\r\nHost: {evil}\r\n\r\n"), 400, "name_conflict"),
        (format!("GET / HTTP/1.1\r\nHost: {evil}\r\nHost: {shop}\r\n\r\n"), 400, "name_conflict"),
        (format!("GET http://{evil}/ HTTP/1.1\r\nHost: {shop}\r\n\r\n"), 400, "name_conflict"),
        (format!("GET http://{shop}/ HTTP/1.1\r\nHost: {evil}\r\n\r\n"), 400, "name_conflict"),
        (format!("GET http://{evil}/ HTTP/1.1\r\nHost: {evil}\r\n\r\n"), 403, "name_not_allowed"),
        (format!("CONNECT {shop}:443 HTTP/1.1\r\nHost: {shop}\r\n\r\n"), 400, "not_judgeable"),
        (format!("CONNECT {evil}:443 HTTP/1.1\r\nHost: {shop}\r\n\r\n"), 400, "not_judgeable"),
        (format!("GET / HTTP/1.1\r\nHost: {shop}, {evil}\r\n\r\n"), 400, "invalid_name"),
        (format!("GET / HTTP/1.1\r\nHost: {shop}@{evil}\r\n\r\n"), 400, "invalid_name"),
        (format!("GET / HTTP/1.1\r\nHost: {evil}#.{shop}\r\n\r\n"), 400, "invalid_name"),
        (format!("GET / HTTP/1.1\r\nHost: {evil}/{shop}\r\n\r\n"), 400, "invalid_name"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 403, "deny_out"),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 403, "deny_out"),
        (format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.evil.v4), 403, "deny_out"),
        (format!("GET / HTTP/1.1\r\nHost: [{}]\r\n\r\n", scene.evil.v6), 403, "deny_out"),
    ];
    for (request, status, reason) in cases {
        let mut talk = scene.talk(HTTP);
        let reply = talk.say(&request).read_reply().or_fail(&request);
        assert_eq!(reply.status, status, "{request}: {reply:?}");
        assert!(reply.body.contains(reason), "{request}: {reply:?}");
        assert!(reply.closes, "{request}: {reply:?}");
    }
    // In absolute form and with the Host that agrees it is a request like any other.
    for target in [format!("http://{shop}/x"), format!("http://{shop}:80/x")] {
        let mut talk = scene.talk(HTTP);
        let reply = talk.say(format!("GET {target} HTTP/1.1\r\nHost: {shop}\r\n\r\n")).reply();
        assert!(scene.shop.shows(&reply.page()), "{target}: {reply:?}");
        assert_eq!(reply.page()["target"], "/x");
    }
    scene.evil_saw_nothing();
}

#[test]
fn a_second_request_hidden_from_the_proxy_reaches_nobody() {
    let scene = scene("smuggled");
    let (shop, evil) = (&scene.shop.name, &scene.evil.name);
    let hidden = format!("GET /hidden HTTP/1.1\r\nHost: {evil}\r\n\r\n");
    let length = hidden.len();
    let post = |fields: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: {shop}\r\n{fields}\r\n\r\n{body}{hidden}")
    };
    let requests = [
        post(&format!("Content-Length: 0\r\nContent-Length: {length}"), ""),
        post(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked"), "0\r\n\r\n"),
        post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n"),
        post("Transfer-Encoding: xchunked", "0\r\n\r\n"),
        post("Transfer-Encoding : chunked", "0\r\n\r\n"),
        post("X: y\nContent-Length: 0", ""),
        post("Content-Length: +0", ""),
    ];
    for request in requests {
        let mut talk = scene.talk(HTTP);
        talk.say(&request);
        let mut answers = Vec::new();
        while let Ok(reply) = talk.read_reply() {
            answers.push(reply);
        }
        // The first request may be refused, or answered by the shop; what is hidden behind it is
        // part of it, or a request that is refused.
        let hidden = answers.iter().any(|reply| reply.page()["target"] == "/hidden");
        assert!(!hidden, "{request}: {answers:?}");
        assert!(answers.len() <= 2, "{request}: {answers:?}");
    }
    scene.evil_saw_nothing();
}

#[test]
fn another_protocol_on_port_80_is_refused() {
    let scene = scene("preface");
    let tls = hello::in_records(&hello::asking_for(Some(scene.shop.name.as_bytes()), &[]), 500);
    let others = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET /\r\n\r\n",
        &tls,
    ];
    for other in others {
        let mut talk = scene.talk(HTTP);
        let reply = talk.say(other).read_reply();
        assert!(reply.as_ref().ok().is_none_or(|reply| reply.status >= 400), "{reply:?}");
        talk.ending();
    }
    let event = scene.sandbox.event("a denial", |event| event["reason"] == "not_judgeable");
    assert_eq!(event["destinationPort"], HTTP);
    scene.evil_saw_nothing();
}

#[test]
fn an_upgrade_to_http2_does_not_happen() {
    let scene = scene("upgrade");
    let mut talk = scene.talk(HTTP);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        scene.shop.name
    );
    let reply = talk.say(request).reply();
    assert_ne!(reply.status, 101, "{reply:?}");
    talk.get(&scene.evil.name).reply().is_refused(403, "name_not_allowed");
    scene.evil_saw_nothing();
}
