//! What the operator decides for all sandboxes, and no sandbox's policy overrides.

use policy_tests::{
    server,
    stage::{MARKER_TO, Shared, ip},
    world::internet,
};
use serde_json::json;

static DEFAULT: Shared = Shared::with("");
static OWN: Shared = Shared::with(
    r#"[dataplane]
    platform_allow = ["10.99.0.0/24", "198.51.100.7"]
    platform_deny = ["10.0.0.0/8", "1.1.1.1", "2001:db8:2::/48"]"#,
);

#[test]
fn metadata_and_private_addresses_stay_closed_even_if_allowed_by_name() {
    let sandbox = DEFAULT.sandbox();
    let entries: Vec<&str> = internet::FLOOR.into_iter().chain(["0.0.0.0/0"]).collect();
    sandbox.network(json!({ "allowOut": entries }));
    for closed in internet::FLOOR {
        sandbox.is_refused(closed);
    }
    sandbox.reaches("64:ff9b::101:101");
}

#[test]
fn the_gateway_and_other_sandboxes_are_private() {
    let (sandbox, other) = (DEFAULT.sandbox(), DEFAULT.sandbox());
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    sandbox.is_refused(&sandbox.identity.gateway_v4().to_string());
    sandbox.is_refused(&sandbox.identity.gateway_v6().to_string());
    sandbox.is_refused(&other.identity.v4().to_string());
    sandbox.is_refused(&other.identity.v6().to_string());
}

#[test]
fn broadcast_and_multicast_are_denied_in_silence() {
    let sandbox = DEFAULT.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    let (me, token) = (sandbox.sender(), sandbox.token());
    let many = ["255.255.255.255", "224.0.0.251", "239.255.255.250", "240.0.0.1", "ff02::fb"];
    let frames: Vec<_> = many.iter().map(|to| me.udp(ip(to), server::CLOSED, &token)).collect();
    assert!(sandbox.crossing(&frames).is_empty());
    let denied = &sandbox.status()["counters"]["platform_deny"]["packets"];
    assert_eq!(*denied, many.len());
}

#[test]
fn platform_allow_beats_platform_deny_and_deny_out() {
    let sandbox = OWN.sandbox();
    sandbox.configure(&json!({ "allowInternetAccess": false }));
    sandbox.reaches("10.99.0.1");
    sandbox.reaches("198.51.100.7");
    sandbox.is_refused("8.8.8.8");
    sandbox.network(json!({ "denyOut": ["10.99.0.1", "198.51.100.7"] }));
    sandbox.reaches("10.99.0.1");
    sandbox.reaches("198.51.100.7");
}

#[test]
fn an_own_platform_deny_replaces_the_default() {
    let sandbox = OWN.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0"] }));
    sandbox.is_refused("1.1.1.1");
    sandbox.is_refused("2001:db8:2::1");
    for open in ["169.254.169.254", "192.168.7.7", "fd99::1", "8.8.8.8"] {
        sandbox.reaches(open);
    }
}

#[test]
fn a_denied_ipv4_address_is_denied_in_every_ipv6_form() {
    let sandbox = OWN.sandbox();
    sandbox.network(json!({ "allowOut": ["0.0.0.0/0", "64:ff9b::101:101", MARKER_TO] }));
    sandbox.is_refused("64:ff9b::101:101");
    let (me, token) = (sandbox.sender(), sandbox.token());
    let forms = [
        "64:ff9b::101:101",
        "2002:101:101::1",
        "2001:0:4136:e378:8000:63bf:fefe:fefe",
        "::101:101",
        "::ffff:1.1.1.1",
    ];
    let frames: Vec<_> = forms.iter().map(|to| me.udp(ip(to), server::CLOSED, &token)).collect();
    assert!(sandbox.crossing(&frames).is_empty());
}
