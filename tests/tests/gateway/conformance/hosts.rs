//! Whom a request is for.

use policy_tests::gateway::PORT;

use super::{SMUGGLED, Scene, statuses};

#[test]
fn a_request_has_one_host() {
    let scene = Scene::set();
    let (host, other) = (scene.sandbox.host(PORT), scene.sandbox.host(PORT + 1));
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
        scene.refuses_one(&request);
    }
    let absolute = format!("GET http://{host}/absolute HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let reply = scene.sandbox.stage.knock().say(absolute).reply();
    assert!(reply.body.starts_with("GET /absolute HTTP/1.1\r\n"), "{reply:?}");
}

#[test]
fn the_gateway_is_no_proxy() {
    let scene = Scene::set();
    let host = scene.sandbox.host(PORT);
    for target in [format!("{host}:443"), "1.1.1.1:443".to_owned(), "localhost:22".to_owned()] {
        scene.refuses(&format!("CONNECT {target} HTTP/1.1\r\nHost: {host}\r\n\r\n{SMUGGLED}"));
    }
    for url in ["http://1.1.1.1/", "http://localhost/", "ftp://1.1.1.1/x"] {
        let request = format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        scene.refuses_one(&request);
    }
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let first = scene.sandbox.request("GET /first", "\r\n");
    let mut talk = scene.sandbox.stage.knock();
    assert_eq!(talk.say(first).reply().status, 200);
    assert_eq!(statuses(talk.say(preface)), [400]);
}
