//! Connections into a sandbox that are used again.

use std::fs;

use policy_tests::{
    gateway::{CONFIG, PORT, recorder::Recorder},
    patience::eventually,
    stage::{OrFail as _, Stage},
    world::Namespace,
};
use serde_json::json;

use crate::played;

const KEPT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

#[test]
fn what_may_have_reached_the_service_is_not_sent_again() {
    let (sandbox, service) = played(json!({}));
    for method in ["GET", "PUT", "DELETE", "POST"] {
        for part in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
            let mut talk = sandbox.ask("GET /first", "\r\n");
            let mut served = service.accept();
            served.head();
            served.say(KEPT);
            assert_eq!(talk.reply().status, 204);
            let mut talk = sandbox.ask(&format!("{method} /second"), "\r\n");
            assert!(served.head().starts_with(method));
            served.say(part);
            drop(served);
            talk.reply().is_of_gateway(502);
            assert!(service.is_quiet(), "{method} {part:?}: it is sent twice");
        }
    }
}

#[test]
fn a_connection_that_the_service_has_closed_is_not_used() {
    let (sandbox, service) = played(json!({}));
    for (line, rest) in [
        ("GET /", "\r\n"),
        ("POST /", "Content-Length: 2\r\n\r\nhi"),
        ("POST /", "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
    ] {
        for _ in 0..10 {
            let mut talk = sandbox.ask("GET /", "\r\n");
            let mut served = service.accept();
            served.head();
            served.say(KEPT);
            assert_eq!(talk.reply().status, 204);
            // The gateway's side has the end then, whether or not anybody has looked there.
            drop(served);
            let told = || told_of_ends(&sandbox.inside).then_some(());
            eventually("the end arrives", told).or_fail("closing");
            let mut talk = sandbox.ask(line, rest);
            let mut served = service.accept();
            served.head();
            served.say("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
            assert_eq!(talk.reply().status, 204, "{line}");
        }
    }
}

/// The state of a socket that has closed its side, which the other has not confirmed yet
/// (include/net/tcp_states.h).
const FIN_WAIT1: &str = "04";

/// Whether the other sides of all connections that were closed in a namespace know it.
#[track_caller]
fn told_of_ends(namespace: &Namespace) -> bool {
    let _inside = namespace.enter().or_fail("entering the sandbox");
    ["tcp", "tcp6"].iter().all(|table| {
        let sockets = fs::read_to_string(format!("/proc/thread-self/net/{table}"));
        let sockets = sockets.or_fail("the sandbox's sockets");
        sockets.lines().all(|line| line.split_whitespace().nth(3) != Some(FIN_WAIT1))
    })
}

/// Ports of a sandbox that has a service on many.
const PORTS: u16 = 150;
/// Idle connections that one sandbox may have, and a few descriptors that others need meanwhile.
const MOST: usize = 64 + 8;

#[test]
fn a_sandbox_with_services_on_every_port_leaves_descriptors_to_others() {
    let stage = Stage::with_names(CONFIG);
    let sandbox = stage.sandbox();
    sandbox.network(json!({}));
    let ports = || PORT..PORT + PORTS;
    let start = |port| Recorder::start(&sandbox.inside, port).or_fail("a recorder");
    let _recorders: Vec<_> = ports().map(start).collect();
    let pid = stage.agent().pid().or_fail("the agent's process");
    let open = || fs::read_dir(format!("/proc/{pid}/fd")).or_fail("its descriptors").count();
    let before = open();
    for port in ports() {
        assert_eq!(stage.knock().get(&sandbox.host(port)).reply().status, 200, "{port}");
    }
    let few = || (open() <= before + MOST).then_some(());
    eventually("idle connections are closed", few).or_fail(&format!("{before}, {}", open()));
}
