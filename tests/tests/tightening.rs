//! Changes of a policy: they bite on the next packet, and a packet is judged by the old rules or
//! by the new ones, never by a mix.

use std::io;

use policy_tests::{
    patience::eventually,
    probe::{self, Seen},
    server,
    stage::{Flood, MARKER_TO, OrFail as _, Shared, ip},
    wire::carries,
};
use serde_json::{Value, json};

static STAGE: Shared = Shared::with("");

fn deny_all() -> Value {
    json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_TO] })
}

#[test]
fn an_established_connection_is_reset_on_its_next_segment() {
    let sandbox = STAGE.sandbox();
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        sandbox.network(json!({}));
        let mut stream = sandbox.connection(address);
        probe::echo(&mut stream, b"before").or_fail("before the tightening");
        sandbox.network(deny_all());
        let after = probe::echo(&mut stream, b"after").expect_err("after the tightening");
        assert_eq!(after.kind(), io::ErrorKind::ConnectionReset, "{address}: {after}");
    }
}

#[test]
fn a_datagram_flow_ends_with_its_next_packet() {
    let sandbox = STAGE.sandbox();
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        sandbox.network(json!({}));
        let socket = sandbox.datagrams(address);
        probe::echo_datagram(&socket, b"before").or_fail("before the tightening");
        sandbox.network(deny_all());
        let after = probe::echo_datagram(&socket, b"after").expect_err("after the tightening");
        assert_eq!(probe::seen(&after), Seen::Prohibited, "{address}: {after}");
    }
}

#[test]
fn a_loosened_policy_works_at_once() {
    let sandbox = STAGE.sandbox();
    sandbox.network(deny_all());
    sandbox.is_refused("8.8.8.8");
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
    sandbox.reaches("8.8.8.8");
}

#[test]
fn when_the_api_has_answered_not_one_more_packet_crosses() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({}));
    let frame = sandbox.sender().udp(ip("8.8.8.8"), server::CLOSED, &sandbox.token());
    let flood = Flood::of(sandbox.wire(), vec![frame]);
    for _ in 0..5 {
        sandbox.network(json!({}));
        let beyond = sandbox.beyond_the_host();
        let crosses = |frame: &[u8]| carries(frame, &sandbox.token());
        beyond.until(crosses).or_fail("the flood crosses");
        sandbox.network(deny_all());
        // What was on its way when the API answered arrives before this marker.
        sandbox.crossing(&[]);
        assert!(sandbox.crossing(&[]).is_empty());
        assert!(flood.is_under_way());
    }
}

/// Both policies allow one destination and deny another: over many changes from one to the other no
/// packet to the first is lost and none to the second crosses.
#[test]
fn a_packet_is_judged_by_the_old_policy_or_by_the_new_one() {
    let sandbox = STAGE.sandbox();
    let policies = [
        json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8", MARKER_TO] }),
        json!({ "denyOut": ["8.8.8.9"], "allowOut": ["1.1.1.1"] }),
    ];
    sandbox.network(policies[0].clone());
    let allowed = sandbox.sender().udp(ip("8.8.8.8"), server::CLOSED, b"<<allowed>>");
    let denied = sandbox.sender().udp(ip("8.8.8.9"), server::CLOSED, &sandbox.token());
    assert!(sandbox.crossing(&[]).is_empty());
    let beyond = sandbox.beyond_the_host();
    let flood = Flood::of(sandbox.wire(), vec![allowed, denied]);
    let (mut arrived, mut leaked) = (0, 0);
    let mut count = || {
        while let Some(frame) = beyond.next().or_fail("reading") {
            arrived += u64::from(carries(&frame, b"<<allowed>>"));
            leaked += u64::from(carries(&frame, &sandbox.token()));
        }
        arrived
    };
    for change in 0..60 {
        sandbox.network(policies[change % 2].clone());
        count();
    }
    assert!(flood.is_under_way());
    let sent = flood.end();
    let all = || (count() >= sent).then_some(());
    let lost_none = eventually("all that was sent to the allowed destination", all);
    assert!(lost_none.is_ok() && leaked == 0, "{arrived} arrived, {leaked} leaked, of {sent} each");
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], sent);
}
