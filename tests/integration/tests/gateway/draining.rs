//! The end of the agent: requests in progress may end, and nothing new begins.

use std::sync::Arc;

use hyper::StatusCode;
use policy_testbed::{
    probe,
    public_url::{self, GATEWAY_CONFIG, SERVICE_PORT, manual_service::ManualService},
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};
use serde_json::json;

use crate::http2_clients::{connect_http2_client, http2_request};

/// A gateway of its own, whose requests may take this many seconds after the agent was told to stop.
#[track_caller]
fn draining_testbed(drain_timeout: u32) -> (Arc<Testbed>, TestSandbox, ManualService) {
    let config = format!("{GATEWAY_CONFIG}drain_timeout = {drain_timeout}\n");
    let testbed = Testbed::with_names(&config);
    let sandbox = testbed.add_sandbox();
    sandbox.apply_network(json!({}));
    let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
    (testbed, sandbox, service)
}

/// Tells the agent to stop, and waits until the gateway accepts no more connections.
#[track_caller]
fn begin_drain(testbed: &Testbed) {
    testbed.agent().begin_stop().or_fail("stopping the agent");
    let connect = || probe::connect(&testbed.network.internet, public_url::http_address());
    eventually("new connections are refused", || connect().is_err().then_some(()))
        .or_fail("the end of the listener");
}

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";

#[test]
fn a_request_in_progress_ends_and_idle_connections_are_closed() {
    let (testbed, sandbox, service) = draining_testbed(60);
    let mut idle = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send(ANSWER);
    assert_eq!(idle.read_response().status, 200);
    let mut silent = testbed.connect_to_gateway();
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    served.read_head();
    begin_drain(&testbed);
    idle.read_to_close();
    silent.read_to_close();
    served.send(ANSWER);
    let reply = talk.read_response();
    assert_eq!((reply.status, &*reply.body), (200, "hi"), "{reply:?}");
    assert!(reply.announces_close, "{reply:?}");
    talk.read_to_close();
    testbed.stop_agent();
}

#[test]
fn a_request_over_http2_ends_as_well() {
    let (testbed, sandbox, service) = draining_testbed(60);
    let (runtime, mut sender) = connect_http2_client(&sandbox);
    let asked = runtime.spawn(sender.send_request(http2_request(&sandbox, "/")));
    let mut served = service.accept();
    served.read_head();
    begin_drain(&testbed);
    served.send(ANSWER);
    let answer = runtime.block_on(asked).or_fail("the task").or_fail("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    // The client keeps its connection, so the agent ends only if the gateway closes it.
    testbed.stop_agent();
}

#[test]
fn a_request_that_does_not_end_is_broken_off() {
    let (testbed, sandbox, service) = draining_testbed(0);
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    testbed.stop_agent();
    talk.read_to_close();
    served.read_to_close();
}

#[test]
fn an_upgraded_connection_does_not_keep_the_agent() {
    let (testbed, sandbox, service) = draining_testbed(60);
    let upgrade = "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let mut talk = sandbox.send_public_request("GET /", upgrade);
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n");
    assert_eq!(talk.read_response().status, 101);
    testbed.stop_agent();
    talk.read_to_close();
    served.read_to_close();
}
