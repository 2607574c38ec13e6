//! Connections into a sandbox: to which of its addresses, when, through which interface, and never
//! to another host.

use std::{fs, net::Ipv4Addr, time::Instant};

use policy_testbed::{
    network::{NetworkNamespace, host_router::HOST_UPLINK_V4},
    public_url::{
        GATEWAY_CONFIG, SERVICE_PORT, manual_service::ManualService,
        recording_service::RecordingService,
    },
    testbed::{OrFail as _, TestSandbox, Testbed},
    wait::{WAIT_LIMIT, eventually},
};
use serde_json::{Value, json};

use crate::TESTBED;

/// Configures these addresses of a sandbox.
#[track_caller]
fn configure_addresses(sandbox: &TestSandbox, addresses: &[String]) {
    sandbox.apply_config(&json!({ "addresses": addresses }));
}

/// The sandbox's own IPv4 address, after an IPv6 address that it does not have.
fn half_present_addresses(sandbox: &TestSandbox) -> [String; 2] {
    let missing = format!("fd00:11:{:x}::77", sandbox.addressing.number);
    [missing, sandbox.addressing.v4().to_string()]
}

#[test]
fn an_address_that_the_sandbox_does_not_have_costs_next_to_nothing() {
    let sandbox = TESTBED.add_sandbox();
    configure_addresses(&sandbox, &half_present_addresses(&sandbox));
    let begin = Instant::now();
    let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
    for _ in 0..10 {
        let mut talk = sandbox.send_public_request("GET /", "\r\n");
        let mut served = service.accept();
        served.read_head();
        served.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!(talk.read_response().status, 204);
    }
    // The kernel tries to resolve a neighbour for three seconds, so ten sequential connections
    // would take thirty.
    assert!(begin.elapsed() < *WAIT_LIMIT, "{:?}", begin.elapsed());
    drop(service);
    // A program that another test is starting holds a copy of the listening socket for a moment.
    let refused = || {
        let closed = sandbox.send_public_request("GET /", "\r\n").read_response();
        closed.assert_from_gateway(502);
        closed.body.contains("nothing listens").then_some(())
    };
    eventually("refused wins", refused).or_fail("asking a closed port");
    let fields = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: 49983\r\n\r\n", sandbox.id);
    let mut talk = sandbox.testbed.connect_to_gateway();
    talk.send(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}"));
    assert_eq!(talk.read_response().status, 204, "it lives");
}

/// The number of connections refused in a namespace so far, and of other resets.
#[track_caller]
fn reset_count(namespace: &NetworkNamespace) -> u64 {
    let _inside = namespace.enter().or_fail("entering the sandbox");
    let text = fs::read_to_string("/proc/thread-self/net/snmp").or_fail("counters");
    let mut tcp = text.lines().filter(|line| line.starts_with("Tcp:"));
    let (names, counts) = (tcp.next().or_fail("names"), tcp.next().or_fail("counts"));
    let mut both = names.split_whitespace().zip(counts.split_whitespace());
    let (_, count) = both.find(|(name, _)| *name == "OutRsts").or_fail("a count of resets");
    count.parse().or_fail("a number")
}

#[test]
fn a_service_that_is_just_being_started_gets_the_request() {
    for (line, rest) in [("GET /", "\r\n"), ("POST /", "Content-Length: 2\r\n\r\nhi")] {
        let sandbox = crate::gateway_sandbox(json!({}));
        let before = reset_count(&sandbox.namespace);
        let mut talk = sandbox.send_public_request(line, rest);
        let refused = || (reset_count(&sandbox.namespace) > before).then_some(());
        eventually("the gateway is refused", refused).or_fail("waiting for the gateway");
        let recorder =
            RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
        assert_eq!(talk.read_response().status, 200, "{line}");
        assert_eq!(recorder.request_heads().len(), 1, "{line}");
        assert!(recorder.received_text().ends_with(rest.rsplit("\r\n").next().unwrap_or_default()));
    }
}

#[test]
fn a_new_sandbox_may_take_longer_until_its_services_listen() {
    let stage = Testbed::with_names(&format!("{GATEWAY_CONFIG}start_timeout = 600\n"));
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({}));
    let before = reset_count(&sandbox.namespace);
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    // The gateway tries again every 50 ms, usually for a second.
    let refused = || (reset_count(&sandbox.namespace) > before + 40).then_some(());
    eventually("the gateway is refused often", refused).or_fail("waiting for the gateway");
    let _recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    assert_eq!(talk.read_response().status, 200);
}

/// Assigns the sandbox an address of the internet's networks, to which the host has a route.
#[track_caller]
fn assign_public_address(sandbox: &TestSandbox, last: u8) -> Ipv4Addr {
    let address = Ipv4Addr::new(203, 0, 113, last);
    sandbox.namespace.ip_batch(&format!("addr add {address}/32 dev eth0")).or_fail("an address");
    let route = format!("route add {address}/32 dev {}", sandbox.interface);
    sandbox.testbed.network.host.ip_batch(&route).or_fail("a route");
    configure_addresses(sandbox, &[address.to_string()]);
    address
}

#[test]
fn when_the_interface_is_down_nobody_else_gets_the_request() {
    let sandbox = TESTBED.add_sandbox();
    let address = assign_public_address(&sandbox, 201);
    let stage = &sandbox.testbed;
    stage.network.internet.ip_batch(&format!("addr add {address}/32 dev lo")).or_fail("a stranger");
    let stranger =
        ManualService::listen(&stage.network.internet, SERVICE_PORT).or_fail("the stranger");
    let service = ManualService::listen(&sandbox.namespace, SERVICE_PORT).or_fail("listening");
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    assert_eq!(talk.read_response().status, 204);
    // Now the host's default route leads to the other host.
    stage.network.host.ip_batch(&format!("link set {} down", sandbox.interface)).or_fail("down");
    for _ in 0..3 {
        let reply = sandbox
            .send_public_request("GET /", "Authorization: Bearer secret\r\n\r\n")
            .read_response();
        reply.assert_from_gateway(502);
    }
    assert!(stranger.has_no_pending_connection(), "a stranger is connected to");
    let up = format!("link set {0} up\nroute replace {address}/32 dev {0}", sandbox.interface);
    stage.network.host.ip_batch(&up).or_fail("up again");
    let mut talk = sandbox.send_public_request("GET /", "\r\n");
    let mut served = service.accept();
    served.read_head();
    served.send("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.read_response().status, 204);
}

#[test]
fn an_address_of_another_machine_gets_no_request() {
    let sandbox = TESTBED.add_sandbox();
    let stage = &sandbox.testbed;
    stage.network.internet.ip_batch("addr add 203.0.113.202/32 dev lo").or_fail("a stranger");
    let stranger =
        ManualService::listen(&stage.network.internet, SERVICE_PORT + 1).or_fail("the stranger");
    configure_addresses(&sandbox, &["203.0.113.202".to_owned()]);
    let mut talk = stage.connect_to_gateway();
    // The kernel tries to resolve such a neighbour for three seconds.
    talk.stream().set_read_timeout(Some(*WAIT_LIMIT)).or_fail("waiting");
    talk.send_get(&sandbox.public_host(SERVICE_PORT + 1)).read_response().assert_from_gateway(502);
    assert!(stranger.has_no_pending_connection(), "a stranger is connected to");
}

#[test]
fn addresses_of_the_host_and_of_metadata_services_are_refused() {
    let sandbox = TESTBED.add_sandbox();
    let own = sandbox.addressing.gateway_v4().to_string();
    for (address, problem) in [
        (&*own, "belongs to the host itself"),
        (&HOST_UPLINK_V4.to_string(), "belongs to the host itself"),
        ("169.254.169.254", "metadata"),
        ("127.0.0.2", "not an address"),
    ] {
        let good = sandbox.addressing.v6().to_string();
        let spec = sandbox.sandbox_spec(&json!({ "addresses": [good, address] }));
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        let answer = sandbox.testbed.request("PUT", &path, &spec);
        assert_eq!(answer.status, 400, "{address}: {}", answer.body);
        let message = answer.json()["message"].to_string();
        assert!(message.contains("addresses[1]") && message.contains(problem), "{message}");
        let known = sandbox.testbed.request("GET", &path, &Value::Null);
        assert_eq!(known.status, 404, "{address}: {}", known.body);
    }
}

#[test]
fn an_address_that_the_host_takes_later_gets_no_request() {
    let sandbox = TESTBED.add_sandbox();
    let address = assign_public_address(&sandbox, 203);
    let stage = &sandbox.testbed;
    let host = ManualService::listen(&stage.network.host, SERVICE_PORT + 2)
        .or_fail("listening on the host");
    let add = format!("addr add {address}/32 dev {}", sandbox.interface);
    stage.network.host.ip_batch(&add).or_fail("an address of the host");
    let mut talk = stage.connect_to_gateway();
    talk.send_get(&sandbox.public_host(SERVICE_PORT + 2)).read_response().assert_from_gateway(502);
    let mut served = host.accept();
    assert_eq!(served.read_to_close(), "", "the request stays in the gateway");
}

#[test]
fn a_sandbox_on_a_port_of_a_bridge_is_reached() {
    let sandbox = TESTBED.add_sandbox();
    let bridge = format!("gb{}", sandbox.addressing.number);
    let bridged = format!(
        "link add {bridge} type bridge
         link set {bridge} up
         addr flush dev {interface}
         link set {interface} master {bridge}
         addr add {v4}/24 dev {bridge}
         addr add {v6}/64 dev {bridge} nodad",
        interface = sandbox.interface,
        v4 = sandbox.addressing.gateway_v4(),
        v6 = sandbox.addressing.gateway_v6(),
    );
    sandbox.testbed.network.host.ip_batch(&bridged).or_fail("a bridge");
    sandbox.apply_network(json!({}));
    let recorder =
        RecordingService::start(&sandbox.namespace, SERVICE_PORT).or_fail("the recorder");
    assert_eq!(sandbox.send_public_request("GET /", "\r\n").read_response().status, 200);
    assert_eq!(recorder.request_heads().len(), 1);
}
