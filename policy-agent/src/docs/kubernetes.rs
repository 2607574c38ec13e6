//! The manifest for Kubernetes agrees with the agent: its configuration and policies are valid, its
//! commands exist, and its paths are those that agent and plugin use.

use std::{collections::BTreeSet, fs};

use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::{
    config::AgentConfig,
    policy::{Floor, NetworkConfig, Policy, PolicyDefaults, parse_json},
};

const MANIFEST: &str = include_str!("../../../dist/kubernetes/policy-agent.yaml");

/// The objects of the manifest.
fn objects() -> Vec<Value> {
    let documents = serde_yaml_ng::Deserializer::from_str(MANIFEST);
    documents.map(|document| Value::deserialize(document).expect("YAML")).collect()
}

fn object(kind: &str) -> Value {
    objects().into_iter().find(|object| object["kind"] == kind).expect(kind)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

#[test]
fn its_objects_belong_together() {
    let kinds = ["Namespace", "ConfigMap", "ConfigMap", "DaemonSet"];
    assert_eq!(objects().iter().map(|object| &object["kind"]).collect::<Vec<_>>(), kinds);
    for inside in &objects()[1..] {
        assert_eq!(inside["metadata"]["namespace"], object("Namespace")["metadata"]["name"]);
    }
    let spec = &object("DaemonSet")["spec"];
    assert_eq!(spec["selector"]["matchLabels"], spec["template"]["metadata"]["labels"]);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["hostNetwork"], true);
    let names = |list: &[Value]| -> BTreeSet<String> {
        list.iter().map(|named| named["name"].as_str().expect("a name").to_owned()).collect()
    };
    let containers = [list(&pod["initContainers"]), list(&pod["containers"])].concat();
    let mounts: Vec<Value> =
        containers.iter().flat_map(|container| list(&container["volumeMounts"]).to_vec()).collect();
    assert_eq!(names(&mounts), names(list(&pod["volumes"])), "every volume is mounted");
}

#[test]
fn its_configuration_and_policies_are_valid() {
    let maps = objects().into_iter().filter(|object| object["kind"] == "ConfigMap");
    let files = maps.flat_map(|map| map["data"].as_object().expect("files").clone());
    for (name, text) in files {
        let text = text.as_str().expect("text");
        if name.ends_with(".toml") {
            AgentConfig::parse(text).expect(&name);
            continue;
        }
        let policy: Value = parse_json(text.as_bytes()).expect(&name);
        let network = policy["network"].to_string();
        let network: NetworkConfig = parse_json(network.as_bytes()).expect(&name);
        let built = Policy::new(&network, None, &PolicyDefaults::default(), &Floor::default());
        built.expect(&name);
    }
}

#[test]
fn its_paths_and_capabilities_are_those_of_the_agent() {
    let config = AgentConfig::default();
    let pod = object("DaemonSet")["spec"]["template"]["spec"].clone();
    let agent = &pod["containers"][0];
    let mounted: BTreeSet<&str> =
        list(&agent["volumeMounts"]).iter().filter_map(|it| it["mountPath"].as_str()).collect();
    let state = config.state_dir.to_str().expect("a path");
    assert!(config.bpffs.starts_with("/sys/fs/bpf"));
    for path in ["/sys/fs/bpf", "/run/policy-agent", state] {
        assert!(mounted.contains(path), "{path}: {mounted:?}");
    }
    let mut volumes = list(&pod["volumes"]).iter();
    let on_nodes = |volume: &Value| volume["hostPath"]["path"] == crate::cli::POLICY_DIRECTORY;
    assert!(volumes.any(on_nodes), "where the plugin reads policies");
    let unit =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/policy-agent.service"));
    let unit = unit.expect("the unit");
    let line = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let of_unit: BTreeSet<_> = line.expect("a line").split(' ').map(str::to_owned).collect();
    let capabilities = &agent["securityContext"]["capabilities"];
    let added = list(&capabilities["add"]).iter().filter_map(Value::as_str);
    assert_eq!(added.map(|name| format!("CAP_{name}")).collect::<BTreeSet<_>>(), of_unit);
    assert_eq!(capabilities["drop"], json!(["ALL"]));
    for container in [&pod["initContainers"][0], agent] {
        let image = format!("policy-agent:{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(container["image"], image.as_str());
        assert!(crate::cli::is_command(container["args"][0].as_str().expect("a command")));
    }
}
