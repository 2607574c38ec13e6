//! Many of everything: sandboxes, connections, packets.

use std::{net::Ipv4Addr, time::Instant};

use policy_tests::{
    packet::Payload,
    probe, server,
    stage::{OrFail as _, Shared, Stage},
    wire::{Sender, Wire},
    world::{host::UPLINK, sandbox::mac_text},
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");

/// Veth pairs, each of which gives two interfaces.
const PAIRS: usize = 100;

/// Far more connections than the kernel remembers: those that nobody uses make way.
#[test]
fn a_flood_of_openings_does_not_end_a_connection_in_use() {
    let sandbox = STAGE.sandbox();
    sandbox.may_only_reach(&[]);
    let servers = server::Servers::start(&sandbox.inside, &sandbox.addresses());
    let _servers = servers.or_fail("starting servers in the sandbox");
    let (internet, host) = (&sandbox.stage.world.internet, &sandbox.stage.world.host);
    let to = (sandbox.identity.v4(), server::ECHO).into();
    let mut stream = probe::connect(internet, to).or_fail("connecting");
    let wire = Wire::open(internet, UPLINK).or_fail("a packet socket");
    let gateway = host.mac(UPLINK).or_fail("the host's MAC");
    for round in 0..40 {
        let v4 = Ipv4Addr::new(203, 0, 113, 100 + round);
        let stranger = Sender { mac: [2, 0, 0, 0, 0, 7], gateway, v4, v6: sandbox.identity.v6() };
        for port in 10_000..15_000 {
            let opening = Payload::syn(port, server::CLOSED);
            wire.send(&stranger.send(sandbox.identity.v4().into(), opening)).or_fail("sending");
        }
        probe::echo(&mut stream, b"still here").or_fail("the connection in use");
    }
}

#[test]
fn two_hundred_sandboxes_are_applied_at_once_and_adopted_at_once() {
    let stage = Stage::with("");
    let mut links = String::new();
    for i in 0..PAIRS {
        links += &format!("link add many{i}a type veth peer name many{i}b\n");
    }
    stage.world.host.ip(&links).or_fail("making interfaces");
    let specs: Vec<Value> = (0..2 * PAIRS).map(spec).collect();
    let begin = Instant::now();
    let applied = stage.cli_with(&["apply", "-f", "-"], &json!(specs).to_string());
    assert_eq!(applied.code, 0, "{applied:?}");
    let took = begin.elapsed();
    assert!(took.as_secs() < 20, "applying took {took:?}");
    stage.kill();
    let begin = Instant::now();
    stage.restart();
    let took = begin.elapsed();
    assert!(took.as_secs() < 10, "adopting took {took:?}");
    let all = stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    let all = all.as_array().cloned().or_fail("a list");
    assert_eq!(all.len(), 2 * PAIRS);
    assert!(all.iter().all(|it| it["status"] == "enforcing"), "{all:?}");
}

fn spec(i: usize) -> Value {
    let side = if i.is_multiple_of(2) { "a" } else { "b" };
    let low = u8::try_from(i).or_fail("a byte");
    json!({
        "sandboxID": format!("many{i}"),
        "interface": format!("many{}{side}", i / 2),
        "addresses": [format!("10.12.0.{low}"), format!("fd00:12::{low:x}")],
        "mac": mac_text([2, 0xfc, 1, 0, 0, low]),
        "network": { "denyOut": ["0.0.0.0/0"], "allowOut": [format!("203.0.113.{}", low % 10)] },
    })
}
