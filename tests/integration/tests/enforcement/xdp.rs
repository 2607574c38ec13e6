//! The same precedence with `mode = "xdp"`: what is dropped silently is dropped before the kernel
//! builds a packet. TC judges the rest.

use crate::precedence_cases::precedence_tests;
use policy_testbed::{
    probe::ProbeResult,
    test_servers,
    testbed::{MARKER_ADDRESS, SharedTestbed, XDP_CONFIG, parse_ip},
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config(XDP_CONFIG);
static SILENT_TESTBED: SharedTestbed =
    SharedTestbed::with_config("[dataplane]\nmode = \"xdp\"\ndeny_action = \"drop\"");

precedence_tests!(TESTBED);

#[test]
fn what_is_dropped_early_is_counted_and_does_not_cross() {
    let sandbox = SILENT_TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_ADDRESS] }));
    let (me, token) = (sandbox.frame_builder(), sandbox.frame_token());
    let frames: Vec<_> =
        (0..20).map(|_| me.udp(parse_ip("8.8.8.8"), test_servers::CLOSED_PORT, &token)).collect();
    assert!(sandbox.frames_crossing(&frames).is_empty());
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], 20);
}

#[test]
fn drops_are_silent_in_xdp_too() {
    let sandbox = SILENT_TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.assert_ignored("8.8.8.8");
    assert_eq!(sandbox.probe_tcp("8.8.8.9", test_servers::ECHO_PORT), ProbeResult::Answered);
}

#[test]
fn a_fragmented_datagram_arrives_whole_in_xdp_mode() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
    let socket = sandbox.connect_echo_udp("8.8.8.8");
    assert!(policy_testbed::probe::echo_datagram(&socket, &[7; 8000]).is_ok());
}
