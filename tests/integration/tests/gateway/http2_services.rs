//! HTTP/2 from the gateway to services that speak it, and WebSockets over HTTP/2 (RFC 8441).

use hyper::{Method, Request, StatusCode, ext::Protocol};
use hyper_util::rt::TokioIo;
use policy_testbed::{
    named_internet::curl::CurlResult,
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT, http2_service::Http2Service,
        recording_service::RecordingService,
    },
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    gateway_sandbox, http2_clients::connect_http2_client, private_network, recording_sandbox,
    website_sandbox,
};

const PRIOR_KNOWLEDGE: &str = "--http2-prior-knowledge";
/// A field with which a request asks for HTTP/2 to the service.
const WITH_TRAILERS: [&str; 3] = [PRIOR_KNOWLEDGE, "-H", "TE: trailers"];

#[track_caller]
fn http2_sandbox() -> (TestSandbox, Http2Service) {
    let sandbox = gateway_sandbox(json!({}));
    let service = start_http2_service(&sandbox);
    (sandbox, service)
}

#[track_caller]
fn start_http2_service(sandbox: &TestSandbox) -> Http2Service {
    Http2Service::start(&sandbox.namespace, SERVICE_PORT, None).or_fail("starting the service")
}

#[track_caller]
fn fetch(sandbox: &TestSandbox, path: &str, arguments: &[&str]) -> CurlResult {
    sandbox.curl_public_url("http", path).with_arguments(arguments).run()
}

#[test]
fn a_request_that_needs_http2_reaches_a_service_that_speaks_it() {
    let (sandbox, service) = http2_sandbox();
    let fetched = fetch(&sandbox, "/a?b=c", &WITH_TRAILERS);
    assert_eq!((fetched.status, &*fetched.version), (200, "2"), "{fetched:?}");
    let host = sandbox.public_host(SERVICE_PORT);
    let text = fetched.text();
    assert!(text.starts_with(&format!("GET http://{host}/a?b=c HTTP/2.0\n")), "{text}");
    assert!(text.contains("te: trailers\n") && text.contains("x-forwarded-for: "), "{text}");
    assert!(!text.contains("\nhost: "), "{text}");
    // From then on all requests over HTTP/2 share the connection.
    for _ in 0..3 {
        assert_eq!(fetch(&sandbox, "/", &[PRIOR_KNOWLEDGE]).status, 200);
    }
    assert_eq!(service.connection_count(), 1);
}

#[test]
fn a_service_of_http1_is_asked_once() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    for _ in 0..3 {
        let fetched = fetch(&sandbox, "/", &WITH_TRAILERS);
        assert_eq!(fetched.status, 200, "{fetched:?}");
        assert!(fetched.text().starts_with("GET / HTTP/1.1\r\n"), "{fetched:?}");
    }
    assert_eq!((recorder.connection_count(), recorder.request_heads().len()), (2, 3));
}

#[test]
fn a_service_that_changes_its_protocol_is_found_out_again() {
    let (sandbox, service) = http2_sandbox();
    let speaks_http2 = || {
        let fields = [PRIOR_KNOWLEDGE, "-H", "Content-Type: application/grpc"];
        let fetched = fetch(&sandbox, "/", &fields);
        let text = fetched.text();
        fetched.status == 200 && text.contains("HTTP/2.0")
    };
    assert!(speaks_http2());
    drop(service);
    let recorder = RecordingService::start(&sandbox.namespace, SERVICE_PORT);
    let recorder = recorder.or_fail("starting the recorder");
    eventually("HTTP/1 is spoken", || (!speaks_http2()).then_some(())).or_fail("HTTP/1");
    assert_eq!(fetch(&sandbox, "/", &WITH_TRAILERS).status, 200);
    drop(recorder);
    let _service = start_http2_service(&sandbox);
    eventually("HTTP/2 is spoken", || speaks_http2().then_some(())).or_fail("HTTP/2");
}

#[test]
fn the_operator_can_say_which_ports_speak_http2() {
    let config = format!("{GATEWAY_CONFIG}http2_ports = [{SERVICE_PORT}]\n");
    let testbed = Testbed::with_names(&config);
    let sandbox = testbed.add_sandbox();
    sandbox.apply_network(json!({}));
    let service = start_http2_service(&sandbox);
    for option in ["--http1.1", PRIOR_KNOWLEDGE] {
        let fetched = fetch(&sandbox, "/", &[option]);
        assert_eq!(fetched.status, 200, "{option}: {fetched:?}");
        assert!(fetched.text().contains("HTTP/2.0"), "{option}: {fetched:?}");
    }
    let body = fetch(&sandbox, "/", &["--http1.1", "-d", "x", "-H", "Transfer-Encoding: chunked"]);
    assert!(!body.text().contains("transfer-encoding"), "{body:?}");
    assert_eq!(service.connection_count(), 1);
    drop(service);
    let _recorder = RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("a recorder");
    let fetched = fetch(&sandbox, "/", &["--http1.1"]);
    assert_eq!(fetched.status, 502, "{fetched:?}");
    assert!(fetched.text().contains("gateway.http2_ports"), "{fetched:?}");
}

#[test]
fn many_calls_at_once_need_few_connections() {
    let (sandbox, service) = http2_sandbox();
    assert_eq!(fetch(&sandbox, "/", &WITH_TRAILERS).status, 200);
    let (runtime, sender) = connect_http2_client(&sandbox);
    runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..200 {
            let mut sender = sender.clone();
            let request = crate::http2_clients::http2_request(&sandbox, &format!("/{number}"));
            tasks.spawn(
                async move { sender.send_request(request).await.or_fail("an answer").status() },
            );
        }
        while let Some(status) = tasks.join_next().await {
            assert_eq!(status.or_fail("a request"), StatusCode::OK);
        }
    });
    assert!(service.connection_count() <= 4, "{}", service.connection_count());
}

/// Opens a WebSocket by extended CONNECT, sends `bytes` and expects `echo`.
#[track_caller]
fn assert_web_socket(sandbox: &TestSandbox, query: &str, bytes: &[u8], echo: &[u8]) {
    let (runtime, mut sender) = connect_http2_client(sandbox);
    runtime.block_on(async {
        let request = connect_request(sandbox, query);
        let mut answer = sender.send_request(request).await.or_fail("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert!(!answer.headers().contains_key("sec-websocket-accept"), "{answer:?}");
        let upgraded = hyper::upgrade::on(&mut answer).await.or_fail("a WebSocket");
        let mut socket = TokioIo::new(upgraded);
        socket.write_all(bytes).await.or_fail("sending");
        let mut received = vec![0; echo.len()];
        socket.read_exact(&mut received).await.or_fail("receiving");
        assert_eq!(received, echo);
    });
}

fn connect_request(
    sandbox: &TestSandbox,
    query: &str,
) -> Request<http_body_util::Empty<hyper::body::Bytes>> {
    let mut request = crate::http2_clients::http2_request(sandbox, &format!("/socket{query}"));
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    let version = hyper::header::HeaderValue::from_static("13");
    request.headers_mut().insert("sec-websocket-version", version);
    request
}

/// A text message, masked with zeros, and its echo, which is not masked (RFC 6455, 5.2).
const MESSAGE: &[u8] = b"\x81\x85\0\0\0\0hello";
const MESSAGE_ECHO: &[u8] = b"\x81\x05hello";

#[test]
fn a_web_socket_over_http2_reaches_a_service_of_http1() {
    let (sandbox, _website) = website_sandbox(json!({}));
    assert_web_socket(&sandbox, "", MESSAGE, MESSAGE_ECHO);
}

#[test]
fn a_web_socket_over_http2_reaches_a_service_of_http2() {
    let (sandbox, service) = http2_sandbox();
    assert_eq!(fetch(&sandbox, "/", &WITH_TRAILERS).status, 200);
    assert_web_socket(&sandbox, "", MESSAGE, MESSAGE);
    assert_eq!(service.connection_count(), 1);
}

#[test]
fn a_private_web_socket_over_http2_needs_the_token() {
    let (sandbox, _website) = website_sandbox(private_network());
    let (runtime, mut sender) = connect_http2_client(&sandbox);
    let refused = runtime.block_on(sender.send_request(connect_request(&sandbox, "")));
    assert_eq!(refused.or_fail("an answer").status(), StatusCode::FORBIDDEN);
    let query = format!("?e2b-traffic-access-token={}", sandbox.traffic_token());
    assert_web_socket(&sandbox, &query, MESSAGE, MESSAGE_ECHO);
}

#[test]
fn a_service_that_opens_no_web_socket_is_heard() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let (runtime, mut sender) = connect_http2_client(&sandbox);
    let answer = runtime.block_on(sender.send_request(connect_request(&sandbox, "")));
    assert_eq!(answer.or_fail("an answer").status(), StatusCode::BAD_GATEWAY);
    let lines = recorder.only_request().join("\n").to_lowercase();
    for field in ["get /socket http/1.1", "upgrade: websocket", "sec-websocket-key: "] {
        assert!(lines.contains(field), "{lines}");
    }
}
