//! The way into a sandbox: at which of its addresses, when, by which device, and never to anybody else.

use std::{fs, net::Ipv4Addr, time::Instant};

use policy_tests::{
    gateway::{PORT, recorder::Recorder, service::Service},
    patience::{PATIENCE, eventually},
    stage::{Guest, OrFail as _},
    world::{Namespace, host::HOST_V4},
};
use serde_json::{Value, json};

use crate::STAGE;

/// A sandbox that the agent is told to have these addresses.
#[track_caller]
fn at(sandbox: &Guest, addresses: &[String]) {
    sandbox.configure(&json!({ "addresses": addresses }));
}

/// One of its own IPv4, after an IPv6 that it does not have.
fn half_there(sandbox: &Guest) -> [String; 2] {
    let missing = format!("fd00:11:{:x}::77", sandbox.identity.number);
    [missing, sandbox.identity.v4().to_string()]
}

#[test]
fn an_address_that_the_sandbox_does_not_have_costs_next_to_nothing() {
    let sandbox = STAGE.sandbox();
    at(&sandbox, &half_there(&sandbox));
    let begin = Instant::now();
    let service = Service::listen(&sandbox.inside, PORT).or_fail("listening");
    for _ in 0..10 {
        let mut talk = sandbox.ask("GET /", "\r\n");
        let mut served = service.accept();
        served.head();
        served.say("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        assert_eq!(talk.reply().status, 204);
    }
    // The kernel looks for a neighbour for three seconds, so ten connections in turn took thirty.
    assert!(begin.elapsed() < *PATIENCE, "{:?}", begin.elapsed());
    drop(service);
    let closed = sandbox.ask("GET /", "\r\n").reply();
    closed.is_of_gateway(502);
    assert!(closed.body.contains("nothing listens"), "refused wins: {closed:?}");
    let fields = format!("E2b-Sandbox-Id: {}\r\nE2b-Sandbox-Port: 49983\r\n\r\n", sandbox.id);
    let mut talk = sandbox.stage.knock();
    talk.say(format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{fields}"));
    assert_eq!(talk.reply().status, 204, "it lives");
}

/// Connections that were refused in a namespace so far, and other resets.
#[track_caller]
fn resets(namespace: &Namespace) -> u64 {
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
        let sandbox = crate::sandbox(json!({}));
        let before = resets(&sandbox.inside);
        let mut talk = sandbox.ask(line, rest);
        let refused = || (resets(&sandbox.inside) > before).then_some(());
        eventually("the gateway is refused", refused).or_fail("waiting for the gateway");
        let recorder = Recorder::start(&sandbox.inside, PORT).or_fail("the recorder");
        assert_eq!(talk.reply().status, 200, "{line}");
        assert_eq!(recorder.heads().len(), 1, "{line}");
        assert!(recorder.text().ends_with(rest.rsplit("\r\n").next().unwrap_or_default()));
    }
}

/// Gives the sandbox an address of the internet's networks, to which the host has a route.
#[track_caller]
fn public(sandbox: &Guest, last: u8) -> Ipv4Addr {
    let address = Ipv4Addr::new(203, 0, 113, last);
    sandbox.inside.ip(&format!("addr add {address}/32 dev eth0")).or_fail("an address");
    let route = format!("route add {address}/32 dev {}", sandbox.interface);
    sandbox.stage.world.host.ip(&route).or_fail("a route");
    at(sandbox, &[address.to_string()]);
    address
}

#[test]
fn when_the_interface_is_down_no_stranger_gets_the_request() {
    let sandbox = STAGE.sandbox();
    let address = public(&sandbox, 201);
    let stage = &sandbox.stage;
    stage.world.internet.ip(&format!("addr add {address}/32 dev lo")).or_fail("a stranger");
    let stranger = Service::listen(&stage.world.internet, PORT).or_fail("the stranger");
    let service = Service::listen(&sandbox.inside, PORT).or_fail("listening");
    let mut talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    served.say("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    assert_eq!(talk.reply().status, 204);
    // Now the host's default route leads to the stranger.
    stage.world.host.ip(&format!("link set {} down", sandbox.interface)).or_fail("down");
    for _ in 0..3 {
        let reply = sandbox.ask("GET /", "Authorization: Bearer secret\r\n\r\n").reply();
        reply.is_of_gateway(502);
    }
    assert!(stranger.is_quiet(), "a stranger is connected to");
    let up = format!("link set {0} up\nroute replace {address}/32 dev {0}", sandbox.interface);
    stage.world.host.ip(&up).or_fail("up again");
    let mut talk = sandbox.ask("GET /", "\r\n");
    let mut served = service.accept();
    served.head();
    served.say("HTTP/1.1 204 No Content\r\n\r\n");
    assert_eq!(talk.reply().status, 204);
}

#[test]
fn an_address_that_is_a_strangers_leads_nowhere() {
    let sandbox = STAGE.sandbox();
    let stage = &sandbox.stage;
    stage.world.internet.ip("addr add 203.0.113.202/32 dev lo").or_fail("a stranger");
    let stranger = Service::listen(&stage.world.internet, PORT + 1).or_fail("the stranger");
    at(&sandbox, &["203.0.113.202".to_owned()]);
    let mut talk = stage.knock();
    // The kernel looks for such a neighbour for three seconds.
    talk.stream().set_read_timeout(Some(*PATIENCE)).or_fail("waiting");
    talk.get(&sandbox.host(PORT + 1)).reply().is_of_gateway(502);
    assert!(stranger.is_quiet(), "a stranger is connected to");
}

#[test]
fn addresses_of_the_host_and_of_metadata_services_are_refused() {
    let sandbox = STAGE.sandbox();
    let own = sandbox.identity.gateway_v4().to_string();
    for (address, problem) in [
        (&*own, "belongs to the host itself"),
        (&HOST_V4.to_string(), "belongs to the host itself"),
        ("169.254.169.254", "metadata"),
        ("127.0.0.2", "not an address"),
    ] {
        let good = sandbox.identity.v6().to_string();
        let spec = sandbox.spec(&json!({ "addresses": [good, address] }));
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        let answer = sandbox.stage.request("PUT", &path, &spec);
        assert_eq!(answer.code, 400, "{address}: {}", answer.body);
        let message = answer.json()["message"].to_string();
        assert!(message.contains("addresses[1]") && message.contains(problem), "{message}");
        let known = sandbox.stage.request("GET", &path, &Value::Null);
        assert_eq!(known.code, 404, "{address}: {}", known.body);
    }
}

#[test]
fn an_address_that_the_host_takes_later_gets_no_request() {
    let sandbox = STAGE.sandbox();
    let address = public(&sandbox, 203);
    let stage = &sandbox.stage;
    let host = Service::listen(&stage.world.host, PORT + 2).or_fail("listening on the host");
    let add = format!("addr add {address}/32 dev {}", sandbox.interface);
    stage.world.host.ip(&add).or_fail("an address of the host");
    let mut talk = stage.knock();
    talk.get(&sandbox.host(PORT + 2)).reply().is_of_gateway(502);
    let mut served = host.accept();
    assert_eq!(served.rest(), "", "the request stays in the gateway");
}

#[test]
fn a_sandbox_on_a_port_of_a_bridge_is_reached() {
    let sandbox = STAGE.sandbox();
    let bridge = format!("gb{}", sandbox.identity.number);
    let bridged = format!(
        "link add {bridge} type bridge
         link set {bridge} up
         addr flush dev {interface}
         link set {interface} master {bridge}
         addr add {v4}/24 dev {bridge}
         addr add {v6}/64 dev {bridge} nodad",
        interface = sandbox.interface,
        v4 = sandbox.identity.gateway_v4(),
        v6 = sandbox.identity.gateway_v6(),
    );
    sandbox.stage.world.host.ip(&bridged).or_fail("a bridge");
    sandbox.network(json!({}));
    let recorder = Recorder::start(&sandbox.inside, PORT).or_fail("the recorder");
    assert_eq!(sandbox.ask("GET /", "\r\n").reply().status, 200);
    assert_eq!(recorder.heads().len(), 1);
}
