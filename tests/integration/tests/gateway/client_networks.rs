//! `allowPublicFrom`: only clients of the listed networks reach a sandbox.

use policy_testbed::{
    network::host_router::HOST_UPLINK_V6,
    public_url::{SERVICE_PORT, TOKEN_NAME},
};
use serde_json::json;

use crate::{
    manual_sandbox, recording_sandbox,
    trusted_proxies::{CLIENT_ADDRESS, FORWARDED_TESTBED, recording_sandbox_on},
};

/// The network of the tests' IPv4 clients.
const IPV4_CLIENTS: &str = "192.0.2.0/24";
/// The networks of the tests' IPv6 clients.
const IPV6_CLIENTS: &str = "2001:db8::/32";

#[test]
fn only_clients_in_the_list_reach_the_sandbox() {
    let (sandbox, recorder) = recording_sandbox(json!({ "allowPublicFrom": ["203.0.113.0/24"] }));
    let mut ipv4 = sandbox.testbed.connect_to_gateway();
    let mut ipv6 = sandbox.testbed.connect_to_gateway_at(&HOST_UPLINK_V6.to_string());
    for (list, expected) in [
        (["203.0.113.0/24"], [403, 403]),
        ([IPV4_CLIENTS], [200, 403]),
        ([IPV6_CLIENTS], [403, 200]),
        (["0.0.0.0/0"], [200, 200]),
    ] {
        sandbox.apply_network(json!({ "allowPublicFrom": list }));
        let before = recorder.request_heads().len();
        for (talk, status) in [&mut ipv4, &mut ipv6].into_iter().zip(expected) {
            let reply = talk.send_get(&sandbox.public_host(SERVICE_PORT)).read_response();
            assert_eq!(reply.status, status, "{list:?}: {reply:?}");
            if status == 403 {
                reply.assert_from_gateway(403);
                assert!(reply.body.contains("allowPublicFrom"), "{reply:?}");
            }
        }
        let admitted = expected.iter().filter(|status| **status == 200).count();
        assert_eq!(recorder.request_heads().len() - before, admitted, "{list:?}");
    }
}

#[test]
fn a_listed_client_of_a_private_sandbox_needs_the_token_too() {
    let network = json!({ "allowPublicFrom": [IPV4_CLIENTS], "allowPublicTraffic": false });
    let (sandbox, recorder) = recording_sandbox(network);
    let token = format!("{TOKEN_NAME}: {}\r\n\r\n", sandbox.traffic_token());
    sandbox.send_public_request("GET /", "\r\n").read_response().assert_from_gateway(403);
    assert_eq!(sandbox.send_public_request("GET /", &token).read_response().status, 200);
    sandbox
        .testbed
        .connect_to_gateway_at(&HOST_UPLINK_V6.to_string())
        .send(sandbox.public_request_text("GET /", &token))
        .read_response()
        .assert_from_gateway(403);
    assert_eq!(recorder.request_heads().len(), 1);
}

#[test]
fn the_client_behind_a_trusted_proxy_counts() {
    let (sandbox, recorder) = recording_sandbox_on(&FORWARDED_TESTBED);
    sandbox.apply_network(json!({ "allowPublicFrom": [CLIENT_ADDRESS] }));
    let forwarded = format!("X-Forwarded-For: {CLIENT_ADDRESS}\r\n\r\n");
    let request = sandbox.public_request_text("GET /", &forwarded);
    assert_eq!(sandbox.testbed.connect_to_gateway().send(&request).read_response().status, 200);
    sandbox.send_public_request("GET /", "\r\n").read_response().assert_from_gateway(403);
    sandbox
        .testbed
        .connect_to_gateway_at(&HOST_UPLINK_V6.to_string())
        .send(&request)
        .read_response()
        .assert_from_gateway(403);
    assert_eq!(recorder.request_heads().len(), 1);
}

#[test]
fn connections_end_when_the_list_changes() {
    let (sandbox, service) = manual_sandbox(json!({ "allowPublicFrom": [IPV4_CLIENTS] }));
    let upgrade = "Connection: Upgrade\r\nUpgrade: raw\r\n\r\n";
    let mut talk = sandbox.send_public_request("GET /", upgrade);
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: raw\r\n\r\n");
    assert_eq!(talk.read_response().status, 101);
    sandbox.apply_network(json!({ "allowPublicFrom": [IPV6_CLIENTS] }));
    talk.read_to_close();
    served.read_to_close();
}
