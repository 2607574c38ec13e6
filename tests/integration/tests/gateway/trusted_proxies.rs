//! The gateway behind the operator's proxies: it accepts information about clients from these
//! proxies only.

use std::fs;

use policy_testbed::{
    named_internet::raw_http::{CloseKind, RawHttpConnection},
    network::host_router::{HOST_UPLINK_V6, INTERNET_UPLINK_V4},
    public_url::{GATEWAY_DOMAIN, SERVICE_PORT, recording_service::RecordingService},
    testbed::{OrFail as _, SharedTestbed, TestSandbox},
    wait::eventually,
};
use serde_json::json;

/// The internet's IPv4 address, the source of the tests' connections, is a trusted proxy. Its IPv6
/// address is not.
pub(crate) static FORWARDED_TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\n\
     trusted_proxies = [\"192.0.2.2\", \"198.51.100.0/24\"]\n",
);

/// The same, with proxies that name the client in the PROXY protocol.
static PROXY_PROTOCOL_TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nhttps = \"[::]:443\"\n\
     trusted_proxies = [\"192.0.2.2\"]\nproxy_protocol = true\n",
);

pub(crate) const CLIENT_ADDRESS: &str = "203.0.113.9";

#[track_caller]
pub(crate) fn recording_sandbox_on(stage: &SharedTestbed) -> (TestSandbox, RecordingService) {
    assert_eq!(INTERNET_UPLINK_V4.to_string(), "192.0.2.2", "as the stages' configurations say");
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    (sandbox, recorder)
}

/// The `X-Forwarded-*` fields that the service receives: client, scheme and host.
#[track_caller]
fn forwarded_fields(talk: &mut RawHttpConnection) -> [String; 3] {
    let reply = talk.read_response();
    assert_eq!(reply.status, 200, "{reply:?}");
    ["for", "proto", "host"].map(|name| {
        let name = format!("x-forwarded-{name}: ");
        let lines: Vec<_> = reply.body.lines().map(str::to_lowercase).collect();
        let mut values = lines.iter().filter_map(|line| line.strip_prefix(&name));
        let value = values.next().or_fail("a field").to_owned();
        assert_eq!(values.next(), None, "{name}: {reply:?}");
        value
    })
}

/// Asserts that the access log names this client.
#[track_caller]
fn assert_logged(sandbox: &TestSandbox, client: &str, status: u16) {
    let file = sandbox.testbed.agent().log_path();
    let logged = || {
        let log = fs::read_to_string(&file).unwrap_or_default();
        let (client, status) = (format!("client={client} "), format!("status={status}"));
        let mut lines = log.lines();
        lines.any(|line| line.contains(&client) && line.contains(&status)).then_some(())
    };
    eventually("the client is logged", logged).or_fail("reading the log");
}

const FORWARDED_HEADERS: &str = "X-Forwarded-For: 1.1.1.1, 203.0.113.9, 198.51.100.7\r\n\
                      X-Forwarded-Proto: https\r\nX-Forwarded-Host: app.example\r\n";

#[test]
fn a_trusted_proxy_is_believed() {
    let (sandbox, _recorder) = recording_sandbox_on(&FORWARDED_TESTBED);
    let mut talk = sandbox.send_public_request("GET /", &format!("{FORWARDED_HEADERS}\r\n"));
    assert_eq!(forwarded_fields(&mut talk), [CLIENT_ADDRESS, "https", "app.example"]);
    assert_logged(&sandbox, CLIENT_ADDRESS, 200);
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    assert_eq!(
        forwarded_fields(&mut talk),
        ["192.0.2.2", "http", &*sandbox.public_host(SERVICE_PORT)]
    );
}

#[test]
fn an_untrusted_proxy_is_not_believed() {
    let (sandbox, recorder) = recording_sandbox_on(&FORWARDED_TESTBED);
    let mut talk = sandbox.testbed.connect_to_gateway_at(&HOST_UPLINK_V6.to_string());
    talk.send(sandbox.public_request_text("GET /", &format!("{FORWARDED_HEADERS}\r\n")));
    let [client, scheme, host] = forwarded_fields(&mut talk);
    assert_eq!((&*scheme, host), ("http", sandbox.public_host(SERVICE_PORT)));
    assert!(client.contains(':'), "{client}");
    let text = recorder.received_text();
    assert!(!text.contains(CLIENT_ADDRESS) && !text.contains("app.example"), "{text}");
}

#[test]
fn a_proxy_may_have_changed_the_host() {
    let (sandbox, _recorder) = recording_sandbox_on(&FORWARDED_TESTBED);
    let asked = format!("X-Forwarded-Host: {}\r\n", sandbox.public_host(SERVICE_PORT));
    let request = format!("GET / HTTP/1.1\r\nHost: gateway.internal\r\n{asked}\r\n");
    let mut talk = sandbox.testbed.connect_to_gateway();
    assert_eq!(forwarded_fields(talk.send(&request))[2], sandbox.public_host(SERVICE_PORT));
    sandbox
        .testbed
        .connect_to_gateway_at(&HOST_UPLINK_V6.to_string())
        .send(&request)
        .read_response()
        .assert_from_gateway(400);
}

/// A version 2 header for an IPv4 client. `tls` are the flags of the client's TLS, if it uses TLS.
fn proxy_header_v2(tls: Option<u8>) -> Vec<u8> {
    let mut rest = vec![203, 0, 113, 9, 192, 0, 2, 1, 0x12, 0x34, 0, 80];
    rest.extend(tls.into_iter().flat_map(|flags| [0x20, 0, 5, flags, 0, 0, 0, 0]));
    let length = u8::try_from(rest.len()).or_fail("a short header");
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..], &[length], &rest].concat()
}

#[test]
fn the_proxy_protocol_names_the_client() {
    let (sandbox, _recorder) = recording_sandbox_on(&PROXY_PROTOCOL_TESTBED);
    let line = format!("PROXY TCP4 {CLIENT_ADDRESS} 192.0.2.1 4711 80\r\n").into_bytes();
    for (header, scheme) in
        [(line, "http"), (proxy_header_v2(None), "http"), (proxy_header_v2(Some(1)), "https")]
    {
        let mut talk = sandbox.testbed.connect_to_gateway();
        // Also in two parts, the second one together with the request.
        let (begin, end) = header.split_at(header.len() / 2);
        talk.send(begin)
            .send([end, sandbox.public_request_text("GET /", "\r\n").as_bytes()].concat());
        assert_eq!(
            forwarded_fields(&mut talk),
            [CLIENT_ADDRESS, scheme, &*sandbox.public_host(SERVICE_PORT)]
        );
        // The client's own statements are not trusted.
        talk.send(sandbox.public_request_text("GET /", &format!("{FORWARDED_HEADERS}\r\n")));
        assert_eq!(
            forwarded_fields(&mut talk),
            [CLIENT_ADDRESS, scheme, &*sandbox.public_host(SERVICE_PORT)]
        );
    }
    assert_logged(&sandbox, CLIENT_ADDRESS, 200);
    let inside_tls =
        sandbox.curl_public_url("https", "/").with_arguments(&["--haproxy-protocol"]).run();
    assert_eq!(inside_tls.status, 200, "{inside_tls:?}");
    assert!(inside_tls.text().to_lowercase().contains("x-forwarded-for: 192.0.2.2\r\n"));
}

#[test]
fn a_header_is_for_proxies_alone_and_they_always_send_one() {
    let (sandbox, recorder) = recording_sandbox_on(&PROXY_PROTOCOL_TESTBED);
    let request = sandbox.public_request_text("GET /", "\r\n");
    assert_eq!(
        sandbox.testbed.connect_to_gateway().send(&request).read_to_close(),
        CloseKind::Reset
    );
    assert_logged(&sandbox, "192.0.2.2", 400);
    assert_eq!(recorder.connection_count(), 0);
    let anybody = || sandbox.testbed.connect_to_gateway_at(&HOST_UPLINK_V6.to_string());
    assert_eq!(anybody().send(&request).read_response().status, 200);
    let forged = format!("PROXY TCP4 {CLIENT_ADDRESS} 192.0.2.1 4711 80\r\n{request}");
    anybody().send(forged).read_response().assert_from_gateway(400);
    assert_eq!(
        anybody().send(proxy_header_v2(None)).try_read_response().ok().map(|reply| reply.status),
        Some(400)
    );
    assert!(!recorder.received_text().contains(CLIENT_ADDRESS));
}

#[test]
fn wrong_networks_are_named() {
    for (line, complaint) in [
        ("trusted_proxies = [\"10.0.0.0/40\"]", "trusted_proxies[0]"),
        ("trusted_proxies = [\"192.0.2.1\", \"lb.example\"]", "trusted_proxies[1]: \"lb.example\""),
        ("trusted_proxies = [\"0.0.0.0/0\"]", "everyone"),
        ("proxy_protocol = true", "needs gateway.trusted_proxies"),
    ] {
        let config =
            format!("[gateway]\ndomain = {GATEWAY_DOMAIN:?}\nhttp = \"[::]:80\"\n{line}\n");
        let stage = policy_testbed::testbed::Testbed::without_agent(&config);
        let started = stage.agent_mut().start(&stage.network.host);
        let error = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
        assert!(error.contains(complaint), "{line}: {error:?}");
    }
}
