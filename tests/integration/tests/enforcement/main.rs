//! What a policy allows and denies, tested with real sockets and raw frames for every way to attach
//! to a sandbox's interface.

mod bridged_frames;
mod checksum;
mod clsact;
mod connection_load;
mod denial_events;
mod deny_action;
mod explain;
mod floor;
mod forwarding_switches;
mod fragments;
mod frame_fixtures;
mod guard;
mod inbound_connections;
mod must_work;
mod network_baseline;
mod observe;
mod other_namespaces;
mod policy_updates;
mod precedence;
mod precedence_cases;
mod virtio_tap;
mod xdp;

use policy_testbed::testbed::{SharedTestbed, TestSandbox};
use serde_json::json;

/// A sandbox with rules in both lists.
fn sandbox_with_rules(testbed: &SharedTestbed) -> TestSandbox {
    let sandbox = testbed.add_sandbox();
    sandbox.apply_network(json!({
        "allowOut": ["1.1.1.1", "8.8.8.0/24"],
        "denyOut": ["8.8.8.8", "203.0.113.0/24", "2001:db8:2::/48"],
    }));
    sandbox
}
