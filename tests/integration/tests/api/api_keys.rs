//! The API over TCP is available to clients with a key, and to no sandbox.

use policy_testbed::{
    probe::ProbeResult,
    testbed::{OrFail as _, SharedTestbed},
};
use serde_json::json;

static TESTBED: SharedTestbed = SharedTestbed::with_config(
    r#"[api]
    listen = "127.0.0.1:3000"
    api_keys = ["e2b_0123", "another"]"#,
);

#[test]
fn over_tcp_a_key_is_needed() {
    let stage = TESTBED.testbed();
    let get = |path: &str, key: Option<&str>| {
        let mut curl = stage.network.host.command("curl").or_fail("entering the host");
        curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10"]);
        if let Some(key) = key {
            curl.args(["-H", &format!("X-API-Key: {key}")]);
        }
        let output = curl.arg(format!("http://127.0.0.1:3000{path}")).output().or_fail("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(get("/agent/v1/sandboxes", Some("e2b_0123")), "200");
    assert_eq!(get("/agent/v1/sandboxes", Some("another")), "200");
    for wrong in [None, Some(""), Some("e2b_012"), Some("e2b_01234"), Some("E2B_0123")] {
        assert_eq!(get("/agent/v1/sandboxes", wrong), "401", "{wrong:?}");
        assert_eq!(get("/metrics", wrong), "401", "{wrong:?}");
        assert_eq!(get("/nowhere", wrong), "401", "{wrong:?}");
    }
    assert_eq!(get("/health", None), "200");
}

#[test]
fn a_sandbox_cannot_reach_the_api() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"] }));
    let gateway = sandbox.addressing.gateway_v4().to_string();
    assert_eq!(sandbox.probe_tcp(&gateway, 3000), ProbeResult::Refused);
    let reason = sandbox.wait_for_event("the attempt", |event| event["destinationPort"] == 3000);
    assert_eq!(reason["reason"], "platform_deny");
}
