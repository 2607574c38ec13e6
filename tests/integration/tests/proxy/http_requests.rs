//! Port 80: the proxy judges every request by its host name and drops a request whose name is
//! ambiguous.

use policy_testbed::{
    named_internet::client_hello,
    test_servers::HTTP_PORT,
    testbed::{DomainScenario, OrFail as _, RESOLVER_CONFIG, SharedTestbed},
};

static TESTBED: SharedTestbed = SharedTestbed::with_names(RESOLVER_CONFIG);

#[track_caller]
fn domain_scenario(name: &str) -> DomainScenario {
    DomainScenario::new(&TESTBED, name)
}

#[test]
fn each_request_of_a_kept_connection_is_judged() {
    let scene = domain_scenario("kept");
    let mut talk = scene.connect_to_denied_site(HTTP_PORT);
    for _ in 0..2 {
        let page = talk.send_get(&scene.allowed_site.name).read_response();
        assert!(scene.allowed_site.served_page(&page.page_json()), "{page:?}");
        let page = talk.send_get(&scene.allowed_subdomain.name).read_response();
        assert!(scene.allowed_subdomain.served_page(&page.page_json()), "{page:?}");
    }
    talk.send_get(&scene.denied_site.name).read_response().assert_refused(403, "name_not_allowed");
    scene.sandbox.assert_name_denied(&scene.denied_site.name, "name_not_allowed");
    scene.assert_denied_site_unreached();
}

#[test]
fn requests_sent_at_once_are_judged_one_by_one() {
    let scene = domain_scenario("pipelined");
    let names = [
        &scene.allowed_site.name,
        &scene.allowed_subdomain.name,
        &scene.denied_site.name,
        &scene.allowed_site.name,
    ];
    let requests: String =
        names.iter().map(|host| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).collect();
    let mut talk = scene.connect_to_denied_site(HTTP_PORT);
    talk.send(requests);
    assert!(scene.allowed_site.served_page(&talk.read_response().page_json()));
    assert!(scene.allowed_subdomain.served_page(&talk.read_response().page_json()));
    talk.read_response().assert_refused(403, "name_not_allowed");
    scene.assert_denied_site_unreached();
}

#[test]
fn a_request_that_names_several_hosts_or_none_that_can_be_judged_is_refused() {
    let scene = domain_scenario("several");
    let (shop, evil) = (&scene.allowed_site.name, &scene.denied_site.name);
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
        (format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", scene.denied_site.v4), 403, "deny_out"),
        (format!("GET / HTTP/1.1\r\nHost: [{}]\r\n\r\n", scene.denied_site.v6), 403, "deny_out"),
    ];
    for (request, status, reason) in cases {
        let mut talk = scene.connect_to_denied_site(HTTP_PORT);
        let reply = talk.send(&request).try_read_response().or_fail(&request);
        assert_eq!(reply.status, status, "{request}: {reply:?}");
        assert!(reply.body.contains(reason), "{request}: {reply:?}");
        assert!(reply.announces_close, "{request}: {reply:?}");
    }
    // In absolute form with a matching Host, it is a normal request.
    for target in [format!("http://{shop}/x"), format!("http://{shop}:80/x")] {
        let mut talk = scene.connect_to_denied_site(HTTP_PORT);
        let reply =
            talk.send(format!("GET {target} HTTP/1.1\r\nHost: {shop}\r\n\r\n")).read_response();
        assert!(scene.allowed_site.served_page(&reply.page_json()), "{target}: {reply:?}");
        assert_eq!(reply.page_json()["target"], "/x");
    }
    scene.assert_denied_site_unreached();
}

#[test]
fn a_second_request_hidden_from_the_proxy_reaches_nobody() {
    let scene = domain_scenario("smuggled");
    let (shop, evil) = (&scene.allowed_site.name, &scene.denied_site.name);
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
        let mut talk = scene.connect_to_denied_site(HTTP_PORT);
        talk.send(&request);
        let mut answers = Vec::new();
        while let Ok(reply) = talk.try_read_response() {
            answers.push(reply);
        }
        // The first request may be refused, or answered by the shop. The bytes hidden after it are
        // part of it, or a request that is refused.
        let hidden = answers.iter().any(|reply| reply.page_json()["target"] == "/hidden");
        assert!(!hidden, "{request}: {answers:?}");
        assert!(answers.len() <= 2, "{request}: {answers:?}");
    }
    scene.assert_denied_site_unreached();
}

#[test]
fn another_protocol_on_port_80_is_refused() {
    let scene = domain_scenario("preface");
    let tls = client_hello::split_into_records(
        &client_hello::hello_message(Some(scene.allowed_site.name.as_bytes()), &[]),
        500,
    );
    let others = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET /\r\n\r\n",
        &tls,
    ];
    for other in others {
        let mut talk = scene.connect_to_denied_site(HTTP_PORT);
        let reply = talk.send(other).try_read_response();
        assert!(reply.as_ref().ok().is_none_or(|reply| reply.status >= 400), "{reply:?}");
        talk.read_to_close();
    }
    let event =
        scene.sandbox.wait_for_event("a denial", |event| event["reason"] == "not_judgeable");
    assert_eq!(event["destinationPort"], HTTP_PORT);
    scene.assert_denied_site_unreached();
}

#[test]
fn an_upgrade_to_http2_does_not_happen() {
    let scene = domain_scenario("upgrade");
    let mut talk = scene.connect_to_denied_site(HTTP_PORT);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        scene.allowed_site.name
    );
    let reply = talk.send(request).read_response();
    assert_ne!(reply.status, 101, "{reply:?}");
    talk.send_get(&scene.denied_site.name).read_response().assert_refused(403, "name_not_allowed");
    scene.assert_denied_site_unreached();
}
