//! The limits of the gateway per sandbox.

use std::time::Duration;

use policy_testbed::{
    named_internet::raw_http::RawHttpConnection,
    network::host_router::HOST_UPLINK_V6,
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT, manual_service::ManualService,
        recording_service::RecordingService,
    },
    testbed::{OrFail as _, SharedTestbed, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::json;

use crate::recording_sandbox;

/// The connection limit per sandbox on this testbed.
const CONNECTION_LIMIT: usize = 4;

static LIMITED_TESTBED: SharedTestbed = SharedTestbed::with_names(
    "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\nmax_connections_per_sandbox = 4\n",
);

#[track_caller]
fn limited_sandbox() -> (TestSandbox, ManualService) {
    let sandbox = LIMITED_TESTBED.add_sandbox();
    sandbox.apply_network(json!({}));
    let service =
        ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening in the sandbox");
    (sandbox, service)
}

/// A request that the service has received and does not respond to.
#[track_caller]
fn pending_request(
    sandbox: &TestSandbox,
    service: &ManualService,
) -> (RawHttpConnection, policy_testbed::public_url::manual_service::ServiceConnection) {
    let talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    (talk, served)
}

#[test]
fn a_sandbox_has_so_many_connections_and_others_have_theirs() {
    let (sandbox, service) = limited_sandbox();
    let mut taken: Vec<_> =
        (0..CONNECTION_LIMIT).map(|_| pending_request(&sandbox, &service)).collect();
    let reply = sandbox.send_public_request("GET /", "\r\n").read_response();
    reply.assert_from_gateway(429);
    assert_eq!(reply.page_json()["sandboxId"], sandbox.id);
    assert!(service.has_no_pending_connection(), "a refused request reaches the sandbox");
    let (other, others) = limited_sandbox();
    let _other = pending_request(&other, &others);

    // A connection is free only after its response is complete.
    let (talk, served) = &mut taken[0];
    served.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n12345");
    talk.read_until("12345");
    sandbox.send_public_request("GET /", "\r\n").read_response().assert_from_gateway(429);
    served.send("67890");
    talk.read_until("67890");
    wait_for_free_connection(&sandbox, &service);
}

/// Waits until a request reaches the service on a new connection.
#[track_caller]
fn wait_for_free_connection(sandbox: &TestSandbox, service: &ManualService) {
    let free = eventually("a place is free", || {
        let mut talk = sandbox.send_public_request("GET /", "\r\n");
        talk.stream().set_read_timeout(Some(Duration::from_millis(10))).or_fail("a short wait");
        let comes = eventually("a connection, or an answer", || {
            if service.has_no_pending_connection() {
                talk.try_read_response().ok().map(|_| false)
            } else {
                Some(true)
            }
        });
        comes.or_fail("asking").then_some(())
    });
    free.or_fail("waiting for a place");
}

#[test]
fn a_client_that_leaves_makes_room() {
    let (sandbox, service) = limited_sandbox();
    let taken: Vec<_> =
        (0..CONNECTION_LIMIT).map(|_| pending_request(&sandbox, &service)).collect();
    sandbox.send_public_request("GET /", "\r\n").read_response().assert_from_gateway(429);
    for (talk, mut served) in taken {
        drop(talk);
        assert_eq!(served.read_to_close(), "", "the service learns of it");
    }
    let _again: Vec<_> =
        (0..CONNECTION_LIMIT).map(|_| pending_request(&sandbox, &service)).collect();
}

#[test]
fn other_protocols_count() {
    let (sandbox, service) = limited_sandbox();
    let fields = "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let granted = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n";
    let opened: Vec<_> = (0..CONNECTION_LIMIT)
        .map(|_| {
            let mut talk = sandbox.send_public_request("GET /", fields);
            let mut served = service.accept();
            served.read_head();
            served.send(granted);
            assert_eq!(talk.read_response().status, 101);
            (talk, served)
        })
        .collect();
    sandbox.send_public_request("GET /", "\r\n").read_response().assert_from_gateway(429);
    drop(opened);
    wait_for_free_connection(&sandbox, &service);
}

#[test]
fn clients_that_say_nothing_or_little_do_not_hold_up_others() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    let silent: Vec<RawHttpConnection> = (0..200)
        .map(|number| {
            let mut talk = sandbox.testbed.connect_to_gateway();
            talk.send(["", "G", "GET / HTTP/1.1\r\nHost: x", "PRI * HTTP/2.0\r\n"][number % 4]);
            talk
        })
        .collect();
    assert_eq!(sandbox.send_public_request("GET /", "\r\n").read_response().status, 200);
    assert_eq!(recorder.connection_count(), 1);
    drop(silent);
}

#[test]
fn kept_connections_are_used_again() {
    let (sandbox, recorder) = recording_sandbox(json!({}));
    for _ in 0..20 {
        assert_eq!(sandbox.send_public_request("GET /", "\r\n").read_response().status, 200);
    }
    assert_eq!((recorder.request_heads().len(), recorder.connection_count()), (20, 1));
}

#[test]
fn a_client_has_so_many_connections_and_others_have_theirs() {
    let stage = Testbed::with_names(&format!("{GATEWAY_CONFIG}max_connections_per_client = 3\n"));
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let _recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    let host = sandbox.public_host(SERVICE_PORT);
    let mut held: Vec<_> = (0..3).map(|_| stage.connect_to_gateway()).collect();
    for talk in &mut held {
        assert_eq!(talk.send_get(&host).read_response().status, 200);
    }
    let try_again = || stage.connect_to_gateway().send_get(&host).try_read_response();
    assert!(try_again().is_err(), "a fourth connection is served");
    let log = || std::fs::read_to_string(stage.agent().log_path()).unwrap_or_default();
    let logged = || log().contains("client=192.0.2.2 status=429").then_some(());
    eventually("the refusal is logged", logged).or_fail("reading the log");
    let mut other = stage.connect_to_gateway_at(&HOST_UPLINK_V6.to_string());
    assert_eq!(other.send_get(&host).read_response().status, 200);
    for talk in &mut held {
        assert_eq!(talk.send_get(&host).read_response().status, 200);
    }
    held.pop();
    let served = || try_again().ok().filter(|reply| reply.status == 200);
    eventually("a closed connection makes room", served).or_fail("connecting");
}

#[test]
fn a_trusted_proxy_is_not_limited() {
    let config = "[gateway]\ndomain = \"sandbox.test\"\nhttp = \"[::]:80\"\n\
                  max_connections_per_client = 1\ntrusted_proxies = [\"192.0.2.2\"]\n";
    let stage = Testbed::with_names(config);
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let _recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    let host = sandbox.public_host(SERVICE_PORT);
    let mut held: Vec<_> = (0..4).map(|_| stage.connect_to_gateway()).collect();
    for talk in &mut held {
        assert_eq!(talk.send_get(&host).read_response().status, 200);
    }
}
