//! `ADD`, `CHECK`, `DEL`, `GC` and `STATUS`, as the CNI specification says.

use policy_testbed::{
    probe::{ProbeKind, ProbeResult, probe, probe_expecting_silence},
    test_servers::ECHO_PORT,
    testbed::parse_ip,
};
use serde_json::{Value, json};

use crate::cni_network::{CniNetwork, Container};

const ALLOWED: &str = "8.8.8.8";
const DENIED: &str = "1.1.1.1";

fn only_allowed() -> Value {
    json!({"network": {"allowOut": [ALLOWED], "denyOut": ["0.0.0.0/0"]}})
}

#[track_caller]
fn assert_enforced(container: &Container) {
    let reached = probe(&container.namespace, ProbeKind::Udp(ECHO_PORT), parse_ip(ALLOWED));
    assert_eq!(reached, ProbeResult::Answered);
    let denied =
        probe_expecting_silence(&container.namespace, ProbeKind::Udp(ECHO_PORT), parse_ip(DENIED));
    assert_ne!(denied, ProbeResult::Answered);
}

#[track_caller]
fn sandboxes(network: &CniNetwork) -> Vec<Value> {
    let list = network.stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    list.as_array().expect("a list").clone()
}

#[test]
fn a_container_gets_the_named_policy_before_add_answers() {
    let network = CniNetwork::new("ptp");
    network.write_policy("restricted", &only_allowed());
    let container = network.container("pod-a");
    let made = network.make_interface(&container);
    let keys = json!({"prevResult": made, "runtimeConfig": {
        "io.kubernetes.cri.pod-annotations": {"policy-agent/policy": "restricted"}}});
    let added = network.call_agent("ADD", &container, &keys);
    assert!(added.succeeded, "{added:?}");
    assert_eq!(added.output, made, "the result of the plugin before it");
    assert_enforced(&container);
    let list = sandboxes(&network);
    assert_eq!(list.len(), 1, "{list:?}");
    assert!(list[0]["mac"].is_string(), "{list:?}");

    let checked = network.call_agent("CHECK", &container, &keys);
    assert!(checked.succeeded, "{checked:?}");
    let deleted = network.call_agent("DEL", &container, &keys);
    assert!(deleted.succeeded, "{deleted:?}");
    assert!(sandboxes(&network).is_empty());
    let again = network.call_agent("DEL", &container, &json!({}));
    assert!(again.succeeded, "a second time, without the result: {again:?}");
    let checked = network.call_agent("CHECK", &container, &keys);
    assert!(!checked.succeeded, "{checked:?}");
    network.remove_interface(&container);
}

#[test]
fn behind_a_bridge_the_containers_own_end_is_attached() {
    let network = CniNetwork::new("bridge");
    network.write_policy("restricted", &only_allowed());
    let container = network.container("pod-bridge");
    let made = network.make_interface(&container);
    let keys = json!({"prevResult": made, "policy": "restricted"});
    let added = network.call_agent("ADD", &container, &keys);
    assert!(added.succeeded, "{added:?}");
    assert_enforced(&container);
    assert!(network.call_agent("DEL", &container, &keys).succeeded);
    network.remove_interface(&container);
}

#[test]
fn garbage_of_this_network_alone_is_collected() {
    let network = CniNetwork::new("ptp");
    let other = network.stage.add_sandbox();
    other.allow_only(&[ALLOWED]);
    let (kept, stale) = (network.container("pod-kept"), network.container("pod-stale"));
    for container in [&kept, &stale] {
        let made = network.make_interface(container);
        let keys = json!({"prevResult": made, "network": {"denyOut": ["0.0.0.0/0"]}});
        let added = network.call_agent("ADD", container, &keys);
        assert!(added.succeeded, "{added:?}");
    }
    assert_eq!(sandboxes(&network).len(), 3);
    let valid = json!({"cni.dev/valid-attachments": [{"containerID": kept.id, "ifname": "eth0"}]});
    let collected = network.call_agent("GC", &kept, &valid);
    assert!(collected.succeeded, "{collected:?}");
    assert_eq!(sandboxes(&network).len(), 2, "one container and what is not of CNI");
    assert!(network.call_agent("CHECK", &stale, &json!({})).output["code"].is_u64());
    for container in [&kept, &stale] {
        network.remove_interface(container);
    }
}

#[test]
fn errors_have_a_code_and_say_what_to_write() {
    let network = CniNetwork::new("ptp");
    let container = network.container("pod-wrong");
    let made = network.make_interface(&container);
    let inline =
        |text: &str| json!({"io.kubernetes.cri.pod-annotations": {"policy-agent/network": text}});
    let cases = [
        (json!({"policy": "x"}), 7, "prevResult: is missing"),
        (json!({"prevResult": made}), 7, "policy: is missing"),
        (json!({"prevResult": made, "policy": "absent"}), 7, "absent.json"),
        (json!({"prevResult": made, "policy": "../etc/passwd"}), 7, "letters, digits"),
        (json!({"prevResult": made, "network": {"allowOut": ["1.2.3.4.5"]}}), 7, "allowOut[0]"),
        (json!({"prevResult": made, "runtimeConfig": inline("{}")}), 7, "inlineAnnotations is off"),
        (json!({"prevResult": made, "cniVersion": "9.0.0"}), 1, "cniVersion"),
        (json!({"prevResult": made, "policy": "x", "socket": "/nowhere.sock"}), 7, "x.json"),
    ];
    for (keys, code, part) in cases {
        let refused = network.call_agent("ADD", &container, &keys);
        assert!(!refused.succeeded, "{keys}");
        assert_eq!(refused.output["code"], code, "{keys}: {:?}", refused.output);
        let message = refused.output["msg"].as_str().expect("a message");
        assert!(message.contains(part), "{message}");
    }
    assert!(sandboxes(&network).is_empty());
    let away = json!({"socket": "/nowhere.sock"});
    assert_eq!(network.call_agent("STATUS", &container, &away).output["code"], 50);
    assert_eq!(network.call_agent("DEL", &container, &away).output["code"], 11, "try again later");
    assert!(network.call_agent("STATUS", &container, &json!({})).succeeded);
    let versions = network.call_agent("VERSION", &container, &json!({})).output;
    assert!(versions["supportedVersions"].as_array().expect("a list").contains(&json!("1.1.0")));
    network.remove_interface(&container);
}
