//! The operator's decisions for all sandboxes, which no sandbox's policy overrides.

use std::sync::Arc;

use policy_agent::policy::DEFAULT_PLATFORM_DENY;
use policy_testbed::{
    network::{
        NetworkNamespace,
        host_router::{HOST_UPLINK_V4, HOST_UPLINK_V6, INTERNET_UPLINK_V4},
        internet_addresses,
        namespaced_sandbox::NamespacedSandbox,
    },
    probe::{self, ProbeKind, ProbeResult},
    test_servers,
    testbed::{MARKER_ADDRESS, OrFail as _, SharedTestbed, TestSandbox, Testbed, parse_ip},
    wait::eventually,
};
use serde_json::{Value, json};

static DEFAULT_FLOOR: SharedTestbed = SharedTestbed::with_config("");
static CUSTOM_FLOOR: SharedTestbed = SharedTestbed::with_config(
    r#"[dataplane]
    platform_allow = ["10.99.0.0/24", "198.51.100.7"]
    platform_deny = ["10.0.0.0/8", "1.1.1.1", "2001:db8:2::/48"]"#,
);
/// The host's uplink addresses are allowed.
static OPEN_HOST: SharedTestbed = SharedTestbed::with_config(
    r#"[dataplane]
    platform_allow = ["192.0.2.1", "2001:db8:ffff::1"]
    platform_deny_add = ["1.1.1.1", "2001:db8:2::/48"]"#,
);

#[test]
fn metadata_and_private_addresses_stay_denied_even_if_allowed_by_name() {
    let sandbox = DEFAULT_FLOOR.add_sandbox();
    let entries: Vec<&str> =
        internet_addresses::FLOOR_ADDRESSES.into_iter().chain(["0.0.0.0/0"]).collect();
    sandbox.apply_network(json!({ "allowOut": entries }));
    for closed in internet_addresses::FLOOR_ADDRESSES {
        sandbox.assert_refused(closed);
    }
    sandbox.assert_reaches("64:ff9b::101:101");
}

#[test]
fn the_gateway_and_other_sandboxes_are_private() {
    let (sandbox, other) = (DEFAULT_FLOOR.add_sandbox(), DEFAULT_FLOOR.add_sandbox());
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"] }));
    sandbox.assert_refused(&sandbox.addressing.gateway_v4().to_string());
    sandbox.assert_refused(&sandbox.addressing.gateway_v6().to_string());
    sandbox.assert_refused(&other.addressing.v4().to_string());
    sandbox.assert_refused(&other.addressing.v6().to_string());
}

#[test]
fn broadcast_and_multicast_are_denied_in_silence() {
    let sandbox = DEFAULT_FLOOR.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"] }));
    let (me, token) = (sandbox.frame_builder(), sandbox.frame_token());
    let many = ["255.255.255.255", "224.0.0.251", "239.255.255.250", "240.0.0.1", "ff02::fb"];
    let frames: Vec<_> =
        many.iter().map(|to| me.udp(parse_ip(to), test_servers::CLOSED_PORT, &token)).collect();
    assert!(sandbox.frames_crossing(&frames).is_empty());
    let denied = &sandbox.status()["counters"]["platform_deny"]["packets"];
    assert_eq!(*denied, many.len());
}

#[test]
fn platform_allow_beats_platform_deny_and_deny_out() {
    let sandbox = CUSTOM_FLOOR.add_sandbox();
    sandbox.apply_config(&json!({ "allowInternetAccess": false }));
    sandbox.assert_reaches("10.99.0.1");
    sandbox.assert_reaches("198.51.100.7");
    sandbox.assert_refused("8.8.8.8");
    sandbox.apply_network(json!({ "denyOut": ["10.99.0.1", "198.51.100.7"] }));
    sandbox.assert_reaches("10.99.0.1");
    sandbox.assert_reaches("198.51.100.7");
}

#[test]
fn a_custom_platform_deny_replaces_the_default() {
    let sandbox = CUSTOM_FLOOR.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"] }));
    sandbox.assert_refused("1.1.1.1");
    sandbox.assert_refused("2001:db8:2::1");
    for open in ["169.254.169.254", "192.168.7.7", "fd99::1", "8.8.8.8"] {
        sandbox.assert_reaches(open);
    }
}

#[test]
fn a_denied_ipv4_address_is_denied_in_every_ipv6_form() {
    let sandbox = CUSTOM_FLOOR.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0", "64:ff9b::101:101", MARKER_ADDRESS] }));
    sandbox.assert_refused("64:ff9b::101:101");
    let (me, token) = (sandbox.frame_builder(), sandbox.frame_token());
    let forms = [
        "64:ff9b::101:101",
        "2002:101:101::1",
        "2001:0:4136:e378:8000:63bf:fefe:fefe",
        "::101:101",
        "::ffff:1.1.1.1",
    ];
    let frames: Vec<_> =
        forms.iter().map(|to| me.udp(parse_ip(to), test_servers::CLOSED_PORT, &token)).collect();
    assert!(sandbox.frames_crossing(&frames).is_empty());
}

#[test]
fn the_hosts_own_addresses_are_denied() {
    let sandbox = DEFAULT_FLOOR.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0", "192.0.2.0/24"] }));
    for own in [HOST_UPLINK_V4.to_string(), HOST_UPLINK_V6.to_string()] {
        sandbox.assert_refused(&own);
        let explained = sandbox.testbed.cli(&["explain", &sandbox.id, &own, "-o", "json"]);
        let answer = explained.json();
        assert_eq!(
            (explained.exit_code, &answer["reason"]),
            (3, &json!("platform_deny")),
            "{answer}"
        );
        assert_eq!(answer["rule"]["list"], "host_address", "{answer}");
        let event = sandbox.wait_for_event(&format!("a denial of {own}"), |event| {
            event["destination"] == own.as_str() && event["reason"] == "platform_deny"
        });
        assert_eq!(event["rule"], answer["rule"], "{event}");
    }
    sandbox.assert_reaches("203.0.113.10");
    assert_eq!(
        sandbox.probe_ping(&INTERNET_UPLINK_V4.to_string()),
        ProbeResult::Answered,
        "its neighbour's"
    );
    // The host also receives packets to the broadcast address of an uplink.
    assert_eq!(sandbox.probe_udp("192.0.2.255", test_servers::ECHO_PORT), ProbeResult::Prohibited);
}

#[test]
fn replies_and_requests_of_the_host_still_pass() {
    let sandbox = DEFAULT_FLOOR.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["0.0.0.0/0"] }));
    let asked = probe::probe(
        &sandbox.testbed.network.host,
        ProbeKind::Ping,
        sandbox.addressing.v4().into(),
    );
    assert_eq!(asked, ProbeResult::Answered, "the answer belongs to what the host began");
}

#[test]
fn platform_allow_opens_the_hosts_own_addresses() {
    let sandbox = OPEN_HOST.add_sandbox();
    sandbox.apply_config(&json!({ "allowInternetAccess": false }));
    for own in [HOST_UPLINK_V4.to_string(), HOST_UPLINK_V6.to_string()] {
        assert_eq!(sandbox.probe_ping(&own), ProbeResult::Answered, "{own}");
    }
    sandbox.assert_refused(&sandbox.addressing.gateway_v4().to_string());
}

#[test]
fn what_is_added_to_platform_deny_is_denied_beside_the_default() {
    let sandbox = OPEN_HOST.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"] }));
    for closed in ["1.1.1.1", "2001:db8:2::1", "64:ff9b::101:101", "169.254.169.254", "fd99::1"] {
        sandbox.assert_refused(closed);
    }
    sandbox.assert_reaches("8.8.8.8");
    let explained = sandbox.testbed.cli(&["explain", &sandbox.id, "1.1.1.1", "-o", "json"]).json();
    let rule = json!({ "list": "platform_deny_add", "index": 0, "entry": "1.1.1.1/32" });
    assert_eq!(explained["rule"], rule);
}

/// Waits until a ping has this result.
#[track_caller]
fn wait_for_ping_result(inside: &NetworkNamespace, address: &str, wanted: &ProbeResult) {
    let seen =
        || (probe::probe(inside, ProbeKind::Ping, parse_ip(address)) == *wanted).then_some(());
    eventually(&format!("{address} is {wanted}"), seen).or_fail("following the host's addresses");
}

#[test]
fn an_address_that_the_host_gets_is_denied_from_then_on() {
    let stage = Testbed::with_config("");
    let sandbox = stage.add_sandbox();
    sandbox.apply_network(json!({ "allowOut": ["0.0.0.0/0"] }));
    let applied = sandbox.status()["policyId"].clone();
    let host = &stage.network.host;
    let new = ["198.51.100.77", "2001:db8:7::7", "203.0.113.129"];
    for address in new {
        let seen =
            probe::probe_expecting_silence(&sandbox.namespace, ProbeKind::Ping, parse_ip(address));
        assert_ne!(seen, ProbeResult::Prohibited, "{address}");
    }
    let lines = "addr add 198.51.100.77/32 dev lo
                 addr add 2001:db8:7::7/128 dev lo nodad
                 route add local 203.0.113.128/25 dev lo";
    host.ip_batch(lines).or_fail("adding addresses");
    for address in new {
        wait_for_ping_result(&sandbox.namespace, address, &ProbeResult::Prohibited);
    }
    sandbox.assert_refused("198.51.100.77");
    sandbox.assert_reaches("203.0.113.10");
    // A new policy is in force in the kernel shortly before the agent reports it.
    let policy = || sandbox.status()["policyId"].clone();
    let replaced = |old: &Value| {
        let new = || Some(policy()).filter(|new| new != old);
        eventually("a new policy", new).or_fail("its number")
    };
    let first = replaced(&applied);
    host.ip_batch("addr del 198.51.100.77/32 dev lo").or_fail("removing an address");
    wait_for_ping_result(&sandbox.namespace, "198.51.100.77", &ProbeResult::Answered);
    replaced(&first);
    assert_refused_after_restart(&stage, &sandbox, "2001:db8:7::7");
}

#[track_caller]
fn assert_refused_after_restart(stage: &Arc<Testbed>, sandbox: &TestSandbox, address: &str) {
    let policy = sandbox.status()["policyId"].clone();
    stage.kill_agent();
    sandbox.assert_refused(address);
    stage.restart_agent();
    sandbox.assert_refused(address);
    assert_eq!(sandbox.status()["policyId"], policy, "what is in force is adopted");
}

#[test]
fn each_namespace_has_addresses_of_its_own() {
    let stage = DEFAULT_FLOOR.testbed();
    let slots =
        ["hostone", "hosttwo"].map(|id| NamespacedSandbox::build(id).or_fail("building a slot"));
    let own = ["198.51.100.81", "198.51.100.82"];
    for (slot, address) in slots.iter().zip(own) {
        let line = format!("addr add {address}/32 dev lo");
        slot.namespace.ip_batch(&line).or_fail("adding an address");
        let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
        let answer = stage.request("PUT", &path, &slot.sandbox_spec(&json!({})));
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    for (slot, (own, foreign)) in slots.iter().zip([(own[0], own[1]), (own[1], own[0])]) {
        let inside = &slot.sandbox.namespace;
        assert_eq!(
            probe::probe(inside, ProbeKind::Ping, parse_ip(own)),
            ProbeResult::Prohibited,
            "{own}"
        );
        let seen = probe::probe_expecting_silence(inside, ProbeKind::Ping, parse_ip(foreign));
        assert_ne!(seen, ProbeResult::Prohibited, "{foreign} is another host's");
        let explained = |to| stage.cli(&["explain", &slot.sandbox.id, to, "-o", "json"]).json();
        assert_eq!(explained(own)["rule"]["entry"], format!("{own}/32"));
        assert_eq!(explained(foreign)["reason"], "no_rule");
        let described = json!({ "spec": slot.sandbox_spec(&json!({})), "destination": own });
        let described = stage.request("POST", "/agent/v1/explain", &described).json();
        assert_eq!(described["rule"]["list"], "host_address", "{described}");
    }
    slots[1]
        .namespace
        .ip_batch(&format!("addr add {}/32 dev lo", own[0]))
        .or_fail("adding an address");
    wait_for_ping_result(&slots[1].sandbox.namespace, own[0], &ProbeResult::Prohibited);
    for slot in &slots {
        let path = format!("/agent/v1/sandboxes/{}", slot.sandbox.id);
        let deleted = stage.request("DELETE", &path, &Value::Null);
        assert_eq!(deleted.status, 204, "{}", deleted.body);
    }
}

#[test]
fn the_configuration_is_shown_with_the_whole_floor_and_without_keys() {
    let stage = Testbed::without_agent(
        "[api]\napi_keys = [\"aSecretKey\"]\n[dataplane]\nplatform_deny_add = [\"203.0.113.0/24\"]",
    );
    let config = stage.agent().config_path().to_string_lossy().into_owned();
    for arguments in [
        &["config", "show"][..],
        &["config", "show", "--defaults"],
        &["config", "show", "--config", &config],
        &["config", "show", "--config", &config, "--defaults", "--platform-deny-add", "9.9.9.9"],
    ] {
        let shown = stage.cli(arguments);
        assert_eq!(shown.exit_code, 0, "{shown:?}");
        for (entry, why) in DEFAULT_PLATFORM_DENY {
            let line = shown.stdout.lines().find(|line| line.contains(&format!("\"{entry}\"")));
            assert!(line.is_some_and(|line| line.ends_with(why)), "{entry}: {shown:?}");
        }
        assert!(!shown.stdout.contains("aSecretKey"), "{shown:?}");
        let of_file = arguments.contains(&"--config");
        assert_eq!(shown.stdout.contains("203.0.113.0/24"), of_file, "{shown:?}");
        let flag = arguments.contains(&"9.9.9.9");
        assert_eq!(shown.stdout.contains("9.9.9.9/32"), flag, "{shown:?}");
    }
    let valid = stage.cli(&["config", "check", "--config", &config]);
    assert_eq!(
        (valid.exit_code, valid.stdout.as_str()),
        (0, "the configuration is valid\n"),
        "{valid:?}"
    );
    let wrong = stage.cli(&["config", "check", "--platform-deny-add", "evil"]);
    assert_eq!(wrong.exit_code, 2, "{wrong:?}");
    assert!(wrong.stderr.contains("platform_deny_add[0]: \"evil\""), "{wrong:?}");
}
