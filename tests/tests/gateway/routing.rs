//! Which sandbox and port a request is for.

use policy_tests::{
    gateway::{self, DOMAIN, PORT, recorder::Recorder, service::Service},
    names::raw::Talk,
    server::HTTP,
    stage::{Guest, OrFail as _},
    world::{host::HOST_V6, slot::Slot},
};
use serde_json::{Value, json};

use crate::{STAGE, recorded, sandbox};

/// What a request with this Host, and lines of more fields, is answered.
#[track_caller]
fn asked(sandbox: &Guest, host: &str, more: &str) -> policy_tests::names::raw::Reply {
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    sandbox.stage.knock().say(request).reply()
}

#[test]
fn the_host_names_port_and_sandbox() {
    let (sandbox, recorder) = recorded(json!({}));
    let own = sandbox.host(PORT);
    let hosts = [
        own.clone(),
        format!("{own}:80"),
        format!("{own}:12345"),
        format!("{own}."),
        own.to_uppercase(),
        format!("{PORT}-{}-6532622b.{DOMAIN}", sandbox.id),
        format!("{PORT}-{}-any-thing.{DOMAIN}", sandbox.id),
    ];
    for (count, host) in hosts.iter().enumerate() {
        assert_eq!(asked(&sandbox, host, "").status, 200, "{host}");
        assert_eq!(recorder.heads().len(), count + 1, "{host}");
    }
}

#[test]
fn headers_name_them_where_the_host_cannot() {
    let (sandbox, recorder) = recorded(json!({}));
    let named = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: {PORT}\r\n", sandbox.id);
    let hosts = ["localhost", "localhost:80", "192.0.2.1", "192.0.2.1:80", "[2001:db8:ffff::1]:80"];
    let hosts = hosts.map(str::to_owned).into_iter().chain([format!("sandbox.{DOMAIN}")]);
    for (count, host) in hosts.enumerate() {
        assert_eq!(asked(&sandbox, &host, &named).status, 200, "{host}");
        assert_eq!(recorder.heads().len(), count + 1, "{host}");
        asked(&sandbox, &host, "").is_of_gateway(400);
        let port = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: 0\r\n", sandbox.id);
        asked(&sandbox, &host, &port).is_of_gateway(400);
        let twice = format!("{named}E2b-Sandbox-Id: other\r\n");
        asked(&sandbox, &host, &twice).is_of_gateway(400);
    }
    asked(&sandbox, "example.org", &named).is_of_gateway(400);
    // Where the host says it, they do not count.
    let other = format!("E2b-Sandbox-Id: other\r\nE2b-Sandbox-Port: {PORT}\r\n");
    assert_eq!(asked(&sandbox, &sandbox.host(PORT), &other).status, 200);
}

#[test]
fn other_hosts_are_bad_requests() {
    let (sandbox, recorder) = recorded(json!({}));
    let id = &sandbox.id;
    let hosts = [
        String::new(),
        DOMAIN.to_owned(),
        format!("{id}.{DOMAIN}"),
        format!("{PORT}.{DOMAIN}"),
        format!("{PORT}-.{DOMAIN}"),
        format!("-{id}.{DOMAIN}"),
        format!("0-{id}.{DOMAIN}"),
        format!("65536-{id}.{DOMAIN}"),
        format!("03000-{id}.{DOMAIN}"),
        format!("+3000-{id}.{DOMAIN}"),
        format!("http-{id}.{DOMAIN}"),
        format!("{PORT}-{id}_.{DOMAIN}"),
        format!("{PORT}-{id}.example.org"),
        format!("{PORT}-{id}.evil{DOMAIN}"),
        format!("{PORT}-{id}.{DOMAIN}.evil.test"),
        format!("www.{PORT}-{id}.{DOMAIN}"),
        format!("user@{PORT}-{id}.{DOMAIN}"),
        format!("{PORT}-{id}.{DOMAIN}/path"),
        format!("{PORT}-{id}.{DOMAIN} other"),
        format!("{PORT}-{id}.{DOMAIN}, other"),
        format!("{PORT}-{id}.{DOMAIN}:port"),
        format!("{PORT}-{}.{DOMAIN}", "a".repeat(64)),
    ];
    for host in hosts {
        let reply = asked(&sandbox, &host, "");
        assert_eq!(reply.status, 400, "{host:?}: {reply:?}");
    }
    assert_eq!(sandbox.stage.knock().say("GET /x HTTP/1.1\r\n\r\n").reply().status, 400);
    assert_eq!(recorder.connections(), 0);
}

#[test]
fn an_unknown_sandbox_and_a_closed_port_are_told_apart() {
    let (sandbox, recorder) = recorded(json!({}));
    let unknown = asked(&sandbox, &gateway::host("nobody", PORT), "");
    unknown.is_of_gateway(502);
    let keys = |page: &Value| page.as_object().map(|page| page.keys().cloned().collect::<Vec<_>>());
    assert_eq!(unknown.page()["sandboxId"], "nobody");
    assert_eq!(keys(&unknown.page()), keys(&json!({"sandboxId": 0, "message": 0, "code": 0})));
    let closed = asked(&sandbox, &sandbox.host(PORT + 1), "");
    closed.is_of_gateway(502);
    assert_eq!(closed.page()["sandboxId"], sandbox.id);
    assert_eq!(closed.page()["port"], PORT + 1);
    assert_ne!(closed.page()["message"], unknown.page()["message"]);
    assert_eq!(recorder.connections(), 0);
}

#[test]
fn every_port_and_every_sandbox_has_its_own_service() {
    let (one, first) = recorded(json!({}));
    let second = Recorder::start(&one.inside, PORT + 1).or_fail("a second service");
    let (other, others) = recorded(json!({}));
    // On one connection, in an order in which a wrong choice would show.
    let mut talk = one.stage.knock();
    for host in [one.host(PORT), one.host(PORT + 1), other.host(PORT), one.host(PORT)] {
        assert_eq!(talk.get(&host).reply().status, 200, "{host}");
    }
    let counts = [&first, &second, &others].map(|recorder| recorder.heads().len());
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn twins_in_two_namespaces_are_told_apart() {
    let stage = STAGE.stage();
    for id in ["gatewayone", "gatewaytwo"] {
        let slot = Slot::build(id).or_fail("building a slot");
        let path = format!("/agent/v1/sandboxes/{id}");
        let answer = stage.request("PUT", &path, &slot.spec(&json!({})));
        assert_eq!(answer.code, 200, "{}", answer.body);
        let recorder = Recorder::start(&slot.sandbox.inside, PORT).or_fail("the recorder");
        let mut talk = stage.knock();
        for count in 1..=2 {
            assert_eq!(talk.get(&gateway::host(id, PORT)).reply().status, 200, "{id}");
            assert_eq!(recorder.heads().len(), count, "{id}");
        }
        assert_eq!(recorder.connections(), 1, "the connection is kept");
        let deleted = stage.request("DELETE", &path, &Value::Null);
        assert_eq!(deleted.code, 204, "{}", deleted.body);
    }
}

#[test]
fn clients_and_services_may_be_of_either_family() {
    let sandbox = sandbox(json!({}));
    let at = (sandbox.identity.v6(), PORT);
    let service = Service::listen_at(&sandbox.inside, at).or_fail("an IPv6 service");
    let to = (std::net::IpAddr::from(HOST_V6), HTTP).into();
    let mut talk = Talk::from(&sandbox.stage.world.internet, to).or_fail("connecting by IPv6");
    talk.get(&sandbox.host(PORT));
    let mut served = service.accept();
    // The answer must not come before the question: a client takes such a connection for broken.
    served.head();
    served.say("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.reply().status, 204);
}

#[test]
fn a_service_for_its_own_sandbox_only_is_closed_to_others() {
    let sandbox = sandbox(json!({}));
    let listener = {
        let _inside = sandbox.inside.enter().or_fail("entering");
        std::net::TcpListener::bind(("127.0.0.1", PORT)).or_fail("listening on localhost")
    };
    listener.set_nonblocking(true).or_fail("not waiting");
    let reply = asked(&sandbox, &sandbox.host(PORT), "");
    reply.is_of_gateway(502);
    assert_eq!(reply.page()["port"], PORT);
    assert!(listener.accept().is_err());
}
