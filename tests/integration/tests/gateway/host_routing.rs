//! Selects the sandbox and the port of a request.

use policy_testbed::{
    named_internet::raw_http::RawHttpConnection,
    network::{host_router::HOST_UPLINK_V6, namespaced_sandbox::NamespacedSandbox},
    public_url::{
        self, GATEWAY_DOMAIN, SERVICE_PORT, manual_service::ManualService,
        recording_service::RecordingService,
    },
    test_servers::HTTP_PORT,
    testbed::{OrFail as _, TestSandbox},
};
use serde_json::{Value, json};

use crate::{TESTBED, gateway_sandbox, recording_sandbox};

/// The response to a request with this Host and additional fields.
#[track_caller]
fn response_for_host(
    sandbox: &TestSandbox,
    host: &str,
    more: &str,
) -> policy_testbed::named_internet::raw_http::RawHttpResponse {
    let request = format!("GET /x HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    sandbox.testbed.connect_to_gateway().send(request).read_response()
}

#[test]
fn the_host_names_port_and_sandbox() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let own = sandbox.public_host(SERVICE_PORT);
    let hosts = [
        own.clone(),
        format!("{own}:80"),
        format!("{own}:12345"),
        format!("{own}."),
        own.to_uppercase(),
        format!("{SERVICE_PORT}-{}-6532622b.{GATEWAY_DOMAIN}", sandbox.id),
        format!("{SERVICE_PORT}-{}-any-thing.{GATEWAY_DOMAIN}", sandbox.id),
    ];
    for (count, host) in hosts.iter().enumerate() {
        assert_eq!(response_for_host(&sandbox, host, "").status, 200, "{host}");
        assert_eq!(recorder.request_heads().len(), count + 1, "{host}");
    }
}

#[test]
fn headers_name_them_where_the_host_cannot() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let named = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: {SERVICE_PORT}\r\n", sandbox.id);
    let hosts = ["localhost", "localhost:80", "192.0.2.1", "192.0.2.1:80", "[2001:db8:ffff::1]:80"];
    let hosts = hosts.map(str::to_owned).into_iter().chain([format!("sandbox.{GATEWAY_DOMAIN}")]);
    for (count, host) in hosts.enumerate() {
        assert_eq!(response_for_host(&sandbox, &host, &named).status, 200, "{host}");
        assert_eq!(recorder.request_heads().len(), count + 1, "{host}");
        response_for_host(&sandbox, &host, "").assert_from_gateway(400);
        let port = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: 0\r\n", sandbox.id);
        response_for_host(&sandbox, &host, &port).assert_from_gateway(400);
        let twice = format!("{named}E2b-Sandbox-Id: other\r\n");
        response_for_host(&sandbox, &host, &twice).assert_from_gateway(400);
    }
    response_for_host(&sandbox, "example.org", &named).assert_from_gateway(400);
    // These fields are ignored if the host selects the sandbox.
    let other = format!("E2b-Sandbox-Id: other\r\nE2b-Sandbox-Port: {SERVICE_PORT}\r\n");
    assert_eq!(response_for_host(&sandbox, &sandbox.public_host(SERVICE_PORT), &other).status, 200);
}

#[test]
fn other_hosts_are_bad_requests() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let id = &sandbox.id;
    let hosts = [
        String::new(),
        GATEWAY_DOMAIN.to_owned(),
        format!("{id}.{GATEWAY_DOMAIN}"),
        format!("{SERVICE_PORT}.{GATEWAY_DOMAIN}"),
        format!("{SERVICE_PORT}-.{GATEWAY_DOMAIN}"),
        format!("-{id}.{GATEWAY_DOMAIN}"),
        format!("0-{id}.{GATEWAY_DOMAIN}"),
        format!("65536-{id}.{GATEWAY_DOMAIN}"),
        format!("03000-{id}.{GATEWAY_DOMAIN}"),
        format!("+3000-{id}.{GATEWAY_DOMAIN}"),
        format!("http-{id}.{GATEWAY_DOMAIN}"),
        format!("{SERVICE_PORT}-{id}_.{GATEWAY_DOMAIN}"),
        format!("{SERVICE_PORT}-{id}.example.org"),
        format!("{SERVICE_PORT}-{id}.evil{GATEWAY_DOMAIN}"),
        format!("{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN}.evil.test"),
        format!("www.{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN}"),
        format!("user@{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN}"),
        format!("{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN}/path"),
        format!("{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN} other"),
        format!("{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN}, other"),
        format!("{SERVICE_PORT}-{id}.{GATEWAY_DOMAIN}:port"),
        format!("{SERVICE_PORT}-{}.{GATEWAY_DOMAIN}", "a".repeat(64)),
    ];
    for host in hosts {
        let reply = response_for_host(&sandbox, &host, "");
        assert_eq!(reply.status, 400, "{host:?}: {reply:?}");
    }
    assert_eq!(
        sandbox.testbed.connect_to_gateway().send("GET /x HTTP/1.1\r\n\r\n").read_response().status,
        400
    );
    assert_eq!(recorder.connection_count(), 0);
}

#[test]
fn an_unknown_sandbox_and_a_closed_port_are_told_apart() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let unknown = response_for_host(&sandbox, &public_url::public_host("nobody", SERVICE_PORT), "");
    unknown.assert_from_gateway(502);
    let keys = |page: &Value| page.as_object().map(|page| page.keys().cloned().collect::<Vec<_>>());
    assert_eq!(unknown.page_json()["sandboxId"], "nobody");
    assert_eq!(keys(&unknown.page_json()), keys(&json!({"sandboxId": 0, "message": 0, "code": 0})));
    let closed = response_for_host(&sandbox, &sandbox.public_host(SERVICE_PORT + 1), "");
    closed.assert_from_gateway(502);
    assert_eq!(closed.page_json()["sandboxId"], sandbox.id);
    assert_eq!(closed.page_json()["port"], SERVICE_PORT + 1);
    assert_ne!(closed.page_json()["message"], unknown.page_json()["message"]);
    assert_eq!(recorder.connection_count(), 0);
}

#[test]
fn every_port_and_every_sandbox_has_its_own_service() {
    let (one, first) = recording_sandbox(json!({}));
    let second =
        RecordingService::start(&one.namespace, SERVICE_PORT + 1).or_fail("a second service");
    let (other, others) = recording_sandbox(json!({}));
    // On one connection, in an order that would reveal a wrong choice.
    let mut talk = one.testbed.connect_to_gateway();
    for host in [
        one.public_host(SERVICE_PORT),
        one.public_host(SERVICE_PORT + 1),
        other.public_host(SERVICE_PORT),
        one.public_host(SERVICE_PORT),
    ] {
        assert_eq!(talk.send_get(&host).read_response().status, 200, "{host}");
    }
    let counts = [&first, &second, &others].map(|recorder| recorder.request_heads().len());
    assert_eq!(counts, [2, 1, 1]);
}

#[test]
fn equal_sandboxes_in_two_namespaces_are_told_apart() {
    let stage = TESTBED.testbed();
    for id in ["gatewayone", "gatewaytwo"] {
        let slot = NamespacedSandbox::build(id).or_fail("building a slot");
        let path = format!("/agent/v1/sandboxes/{id}");
        let answer = stage.request("PUT", &path, &slot.sandbox_spec(&json!({})));
        assert_eq!(answer.status, 200, "{}", answer.body);
        let recorder =
            RecordingService::start(&slot.sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
        let mut talk = stage.connect_to_gateway();
        for count in 1..=2 {
            assert_eq!(
                talk.send_get(&public_url::public_host(id, SERVICE_PORT)).read_response().status,
                200,
                "{id}"
            );
            assert_eq!(recorder.request_heads().len(), count, "{id}");
        }
        assert_eq!(recorder.connection_count(), 1, "the connection is kept");
        let deleted = stage.request("DELETE", &path, &Value::Null);
        assert_eq!(deleted.status, 204, "{}", deleted.body);
    }
}

#[test]
fn clients_and_services_may_be_of_either_family() {
    let sandbox = gateway_sandbox(json!({}));
    let at = (sandbox.addressing.v6(), SERVICE_PORT);
    let service = ManualService::listen_at(&sandbox.namespace, at).or_fail("an IPv6 service");
    let to = (std::net::IpAddr::from(HOST_UPLINK_V6), HTTP_PORT).into();
    let mut talk = RawHttpConnection::connect(&sandbox.testbed.network.internet, to)
        .or_fail("connecting by IPv6");
    talk.send_get(&sandbox.public_host(SERVICE_PORT));
    let mut served = service.accept();
    // The response must not precede the request: a client takes such a connection for broken.
    served.read_head();
    served.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.read_response().status, 204);
}

#[test]
fn a_service_for_its_own_sandbox_only_is_closed_to_others() {
    let sandbox = gateway_sandbox(json!({}));
    let listener = {
        let _inside = sandbox.namespace.enter().or_fail("entering");
        std::net::TcpListener::bind(("127.0.0.1", SERVICE_PORT)).or_fail("listening on localhost")
    };
    listener.set_nonblocking(true).or_fail("not waiting");
    let reply = response_for_host(&sandbox, &sandbox.public_host(SERVICE_PORT), "");
    reply.assert_from_gateway(502);
    assert_eq!(reply.page_json()["port"], SERVICE_PORT);
    assert!(listener.accept().is_err());
}
