//! The destination host of a request.

use policy_testbed::public_url::SERVICE_PORT;

use super::{SMUGGLED_REQUEST, SmugglingScenario, read_statuses};

#[test]
fn a_request_has_one_host() {
    let scene = SmugglingScenario::new();
    let (host, other) =
        (scene.sandbox.public_host(SERVICE_PORT), scene.sandbox.public_host(SERVICE_PORT + 1));
    let requests = [
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nHost: {other}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nhOST: evil\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}, {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost : {host}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {host}\r\n {other}\r\n\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
        format!("GET http://{other}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\nHost: {other}\r\n\r\n"),
        format!("GET http://evil.test/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http://{host}/ HTTP/1.1\r\n\r\n"),
        format!("GET http://user@{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET http:///x HTTP/1.1\r\nHost: {host}\r\n\r\n"),
    ];
    for request in requests {
        scene.assert_one_refused(&request);
    }
    let absolute = format!("GET http://{host}/absolute HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let reply = scene.sandbox.testbed.connect_to_gateway().send(absolute).read_response();
    assert!(reply.body.starts_with("GET /absolute HTTP/1.1\r\n"), "{reply:?}");
}

#[test]
fn the_gateway_is_no_proxy() {
    let scene = SmugglingScenario::new();
    let host = scene.sandbox.public_host(SERVICE_PORT);
    for target in [format!("{host}:443"), "1.1.1.1:443".to_owned(), "localhost:22".to_owned()] {
        scene.assert_refused(&format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n{SMUGGLED_REQUEST}"
        ));
    }
    for url in ["http://1.1.1.1/", "http://localhost/", "ftp://1.1.1.1/x"] {
        let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        scene.assert_one_refused(&request);
    }
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let first = scene.sandbox.public_request_text("GET /first", "\r\n");
    let mut talk = scene.sandbox.testbed.connect_to_gateway();
    assert_eq!(talk.send(first).read_response().status, 200);
    assert_eq!(read_statuses(talk.send(preface)), [400]);
}
