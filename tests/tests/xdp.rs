//! The same precedence with `mode = "xdp"`: what would be dropped in silence is dropped before the
//! kernel builds a packet of it, the rest is judged at TC.

use policy_tests::{
    precedence_tests,
    probe::Seen,
    server,
    stage::{MARKER_TO, Shared, ip},
};
use serde_json::json;

static STAGE: Shared = Shared::with("[dataplane]\nmode = \"xdp\"");
static SILENT: Shared = Shared::with("[dataplane]\nmode = \"xdp\"\ndeny_action = \"drop\"");

precedence_tests!(STAGE);

#[test]
fn what_is_dropped_early_is_counted_and_does_not_cross() {
    let sandbox = SILENT.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": [MARKER_TO] }));
    let (me, token) = (sandbox.sender(), sandbox.token());
    let frames: Vec<_> = (0..20).map(|_| me.udp(ip("8.8.8.8"), server::CLOSED, &token)).collect();
    assert!(sandbox.crossing(&frames).is_empty());
    assert_eq!(sandbox.status()["counters"]["deny_out"]["packets"], 20);
}

#[test]
fn silence_is_kept_in_xdp_too() {
    let sandbox = SILENT.sandbox();
    sandbox.network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.is_ignored("8.8.8.8");
    assert_eq!(sandbox.tcp("8.8.8.9", server::ECHO), Seen::Answered);
}

#[test]
fn a_fragmented_datagram_arrives_whole_in_xdp_mode() {
    let sandbox = STAGE.sandbox();
    sandbox.network(json!({ "denyOut": ["0.0.0.0/0"], "allowOut": ["8.8.8.8"] }));
    let socket = sandbox.datagrams("8.8.8.8");
    assert!(policy_tests::probe::echo_datagram(&socket, &[7; 8000]).is_ok());
}
