//! Reuse of connections into a sandbox.

use std::fs;

use policy_testbed::{
    network::NetworkNamespace,
    public_url::{GATEWAY_CONFIG, SERVICE_PORT, recording_service::RecordingService},
    testbed::{OrFail as _, Testbed},
    wait::eventually,
};
use serde_json::json;

use crate::manual_sandbox;

const NO_CONTENT_RESPONSE: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[test]
fn what_may_have_reached_the_service_is_not_sent_again() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for method in ["GET", "PUT", "DELETE", "POST"] {
        for part in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
            let mut talk = sandbox.send_public_request("GET /first", "\r\n");
            let mut served = service.accept();
            served.read_head();
            served.send(NO_CONTENT_RESPONSE);
            assert_eq!(talk.read_response().status, 204);
            let mut talk = sandbox.send_public_request(&format!("{method} /second"), "\r\n");
            assert!(served.read_head().starts_with(method));
            served.send(part);
            drop(served);
            talk.read_response().assert_from_gateway(502);
            assert!(service.has_no_pending_connection(), "{method} {part:?}: it is sent twice");
        }
    }
}

#[test]
fn a_connection_that_the_service_has_closed_is_not_used() {
    let (sandbox, service) = manual_sandbox(json!({}));
    for (line, rest) in [
        ("GET /", "\r\n"),
        ("POST /", "Content-Length: 2\r\n\r\nhi"),
        ("POST /", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ] {
        for _ in 0..10 {
            let mut talk = sandbox.send_public_request("GET /", "\r\n");
            let mut served = service.accept();
            served.read_head();
            served.send(NO_CONTENT_RESPONSE);
            assert_eq!(talk.read_response().status, 204);
            // The gateway's socket has received the end, whether or not the gateway has read it.
            drop(served);
            let told = || all_closes_acknowledged(&sandbox.namespace).then_some(());
            eventually("the end arrives", told).or_fail("closing");
            let mut talk = sandbox.send_public_request(line, rest);
            let mut served = service.accept();
            served.read_head();
            served.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            assert_eq!(talk.read_response().status, 204, "{line}");
        }
    }
}

/// The state of a socket that has sent a FIN that is not acknowledged yet
/// (include/net/tcp_states.h).
const TCP_FIN_WAIT1: &str = "04";

/// Returns whether the peers have acknowledged all closed connections of a namespace.
#[track_caller]
fn all_closes_acknowledged(namespace: &NetworkNamespace) -> bool {
    let _inside = namespace.enter().or_fail("entering the sandbox");
    ["tcp", "tcp6"].iter().all(|table| {
        let sockets = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        let sockets = sockets.or_fail("the sandbox's sockets");
        sockets.lines().all(|line| line.split_whitespace().nth(3) != Some(TCP_FIN_WAIT1))
    })
}

/// The number of ports with a service.
const SERVICE_PORTS: u16 = 150;
/// The limit of idle connections per sandbox, plus a few descriptors for other purposes.
const MAX_IDLE_DESCRIPTORS: usize = 64 + 8;

#[test]
fn a_sandbox_with_services_on_every_port_leaves_descriptors_to_others() {
    let stage = Testbed::with_names(GATEWAY_CONFIG);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let ports = || SERVICE_PORT..SERVICE_PORT + SERVICE_PORTS;
    let start = |port| RecordingService::start(&sandbox.namespace, port).or_fail("a recorder");
    let _recorders: Vec<_> = ports().map(start).collect();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).or_fail("its descriptors").count();
    let before = open();
    for port in ports() {
        assert_eq!(
            stage.connect_to_gateway().send_get(&sandbox.public_host(port)).read_response().status,
            200,
            "{port}"
        );
    }
    let few = || (open() <= before + MAX_IDLE_DESCRIPTORS).then_some(());
    eventually("idle connections are closed", few).or_fail(&format!("{before}, {}", open()));
}
