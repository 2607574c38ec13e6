//! Policy updates: they apply to the next packet. A packet is judged by the old rules or by the new
//! ones, never by a mix.

use std::io;

use policy_testbed::{
    packet_socket::contains_bytes,
    probe::{self, ProbeResult},
    test_servers,
    testbed::{FrameFlood, MARKER_ADDRESS, OrFail as _, SharedTestbed, parse_ip},
    wait::eventually,
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

#[test]
fn an_established_connection_is_reset_on_its_next_segment() {
    let sandbox = TESTBED.add_sandbox();
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        sandbox.apply_network(json!({}));
        let mut stream = sandbox.connect_echo(address);
        probe::echo(&mut stream, b"before").or_fail("before the tightening");
        sandbox.allow_only(&[MARKER_ADDRESS]);
        let after = probe::echo(&mut stream, b"after").expect_err("after the tightening");
        assert_eq!(after.kind(), io::ErrorKind::ConnectionReset, "{address}: {after}");
    }
}

#[test]
fn a_datagram_flow_ends_with_its_next_packet() {
    let sandbox = TESTBED.add_sandbox();
    for address in ["8.8.8.8", "2001:db8:1::1"] {
        sandbox.apply_network(json!({}));
        let socket = sandbox.connect_echo_udp(address);
        probe::echo_datagram(&socket, b"before").or_fail("before the tightening");
        sandbox.allow_only(&[MARKER_ADDRESS]);
        let after = probe::echo_datagram(&socket, b"after").expect_err("after the tightening");
        assert_eq!(probe::result_from_error(&after), ProbeResult::Prohibited, "{address}: {after}");
    }
}

#[test]
fn a_loosened_policy_works_at_once() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.allow_only(&[MARKER_ADDRESS]);
    sandbox.assert_refused("8.8.8.8");
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
    sandbox.assert_reaches("8.8.8.8");
}

#[test]
fn when_the_api_has_answered_not_one_more_packet_crosses() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({}));
    let frame = sandbox.frame_builder().udp(
        parse_ip("8.8.8.8"),
        test_servers::CLOSED_PORT,
        &sandbox.frame_token(),
    );
    let flood = FrameFlood::start(sandbox.open_packet_socket(), vec![frame]);
    for _ in 0..5 {
        sandbox.apply_network(json!({}));
        let beyond = sandbox.open_uplink_socket();
        let crosses = |frame: &[u8]| contains_bytes(frame, &sandbox.frame_token());
        beyond.receive_until(crosses).or_fail("the flood crosses");
        sandbox.allow_only(&[MARKER_ADDRESS]);
        // Packets in flight when the API responded arrive before this marker.
        sandbox.frames_crossing(&[]);
        assert!(sandbox.frames_crossing(&[]).is_empty());
        assert!(flood.is_running());
    }
}

/// Both policies allow one destination and deny another. Over many updates from one to the other,
/// no packet to the first is lost and none to the second crosses.
#[test]
fn a_packet_is_judged_by_the_old_policy_or_by_the_new_one() {
    let sandbox = TESTBED.add_sandbox();
    let policies = [
        json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8", MARKER_ADDRESS] }),
        json!({ "denyOut": ["8.8.8.9"], "allowOut": ["1.1.1.1"] }),
    ];
    sandbox.apply_network(policies[0].clone());
    let allowed =
        sandbox.frame_builder().udp(parse_ip("8.8.8.8"), test_servers::CLOSED_PORT, b"<<allowed>>");
    let denied = sandbox.frame_builder().udp(
        parse_ip("8.8.8.9"),
        test_servers::CLOSED_PORT,
        &sandbox.frame_token(),
    );
    assert!(sandbox.frames_crossing(&[]).is_empty());
    let beyond = sandbox.open_uplink_socket();
    let flood = FrameFlood::start(sandbox.open_packet_socket(), vec![allowed, denied]);
    let (mut arrived, mut leaked) = (0, 0);
    let mut count = || {
        while let Some(frame) = beyond.try_receive().or_fail("reading") {
            arrived += u64::from(contains_bytes(&frame, b"<<allowed>>"));
            leaked += u64::from(contains_bytes(&frame, &sandbox.frame_token()));
        }
        arrived
    };
    for change in 0..60 {
        sandbox.apply_network(policies[change % 2].clone());
        count();
    }
    assert!(flood.is_running());
    let sent = flood.stop();
    let all = || (count() >= sent).then_some(());
    let lost_none = eventually("all that was sent to the allowed destination", all);
    assert!(lost_none.is_ok() && leaked == 0, "{arrived} arrived, {leaked} leaked, of {sent} each");
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], sent);
}
