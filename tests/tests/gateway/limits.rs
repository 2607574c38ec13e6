//! How much of the gateway one sandbox may take.

use std::time::Duration;

use policy_tests::{
    gateway::{PORT, service::Service},
    names::raw::Talk,
    patience::eventually,
    stage::{Guest, OrFail as _, Shared},
};
use serde_json::json;

use crate::recorded;

/// Connections of a sandbox on this stage.
const LIMIT: usize = 4;

static NARROW: Shared = Shared::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nmax_connections_per_sandbox = 4\n",
);

#[track_caller]
fn narrow() -> (Guest, Service) {
    let sandbox = NARROW.sandbox();
    sandbox.network(json!({}));
    let service = Service::listen(&sandbox.inside, PORT).or_fail("listening in the sandbox");
    (sandbox, service)
}

/// A request that the service has, and does not answer.
#[track_caller]
fn hanging(sandbox: &Guest, service: &Service) -> (Talk, policy_tests::gateway::service::Served) {
    let talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    (talk, served)
}

#[test]
fn a_sandbox_has_so_many_connections_and_others_have_theirs() {
    let (sandbox, service) = narrow();
    let mut taken: Vec<_> = (0..LIMIT).map(|_| hanging(&sandbox, &service)).collect();
    let reply = sandbox.ask("GET /", "\r\n").reply();
    reply.is_of_gateway(429);
    assert_eq!(reply.page()["sandboxId"], sandbox.id);
    assert!(service.is_quiet(), "a refused request reaches the sandbox");
    let (other, others) = narrow();
    let _other = hanging(&other, &others);

    // A place is free when an answer has ended, and not before.
    let (talk, served) = &mut taken[0];
    served.say("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n12345");
    talk.until("12345");
    sandbox.ask("GET /", "\r\n").reply().is_of_gateway(429);
    served.say("67890");
    talk.until("67890");
    becomes_free(&sandbox, &service);
}

/// Whether a request comes to the service by a new connection, after a moment.
#[track_caller]
fn becomes_free(sandbox: &Guest, service: &Service) {
    let free = eventually("a place is free", || {
        let mut talk = sandbox.ask("GET /", "\r\n");
        talk.stream().set_read_timeout(Some(Duration::from_millis(10))).or_fail("a short wait");
        let comes = eventually("a connection, or an answer", || {
            if service.is_quiet() { talk.read_reply().ok().map(|_| false) } else { Some(true) }
        });
        comes.or_fail("asking").then_some(())
    });
    free.or_fail("waiting for a place");
}

#[test]
fn a_client_that_leaves_makes_room() {
    let (sandbox, service) = narrow();
    let taken: Vec<_> = (0..LIMIT).map(|_| hanging(&sandbox, &service)).collect();
    sandbox.ask("GET /", "\r\n").reply().is_of_gateway(429);
    for (talk, mut served) in taken {
        drop(talk);
        assert_eq!(served.rest(), "", "the service learns of it");
    }
    let _again: Vec<_> = (0..LIMIT).map(|_| hanging(&sandbox, &service)).collect();
}

#[test]
fn other_protocols_count() {
    let (sandbox, service) = narrow();
    let fields = "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let granted = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    let opened: Vec<_> = (0..LIMIT)
        .map(|_| {
            let mut talk = sandbox.ask("GET /", fields);
            let mut served = service.accept();
            served.head();
            served.say(granted);
            assert_eq!(talk.reply().status, 101);
            (talk, served)
        })
        .collect();
    sandbox.ask("GET /", "\r\n").reply().is_of_gateway(429);
    drop(opened);
    becomes_free(&sandbox, &service);
}

#[test]
fn clients_that_say_nothing_or_little_do_not_hold_up_others() {
    let (sandbox, recorder) = recorded(json!({}));
    let silent: Vec<Talk> = (0..200)
        .map(|number| {
            let mut talk = sandbox.stage.knock();
            talk.say(["", "G", "GET / HTTP/1.1\r\nHost: x", "PRI * HTTP/2.0\r\n"][number % 4]);
            talk
        })
        .collect();
    assert_eq!(sandbox.ask("GET /", "\r\n").reply().status, 200);
    assert_eq!(recorder.connections(), 1);
    drop(silent);
}

#[test]
fn kept_connections_are_used_again() {
    let (sandbox, recorder) = recorded(json!({}));
    for _ in 0..20 {
        assert_eq!(sandbox.ask("GET /", "\r\n").reply().status, 200);
    }
    assert_eq!((recorder.heads().len(), recorder.connections()), (20, 1));
}
