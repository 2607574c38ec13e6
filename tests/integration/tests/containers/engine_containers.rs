//! Sandboxes that are containers of Docker and Podman: `apply --docker`, and what happens when the
//! container is restarted.

use std::fs;

use policy_testbed::{agent::agent_binary, testbed::OrFail as _, wait::eventually};
use serde_json::{Value, json};

use crate::container_engine::{ContainerEngine, EngineKind};

const ALLOWED: &str = "8.8.8.8";
const DENIED: &str = "1.1.1.1";
/// The network of a container that is in two.
const SECOND_SUBNET: &str = "10.11.243.0/24";
/// How the addresses of Podman's containers begin.
const PODMAN_PREFIX: &str = "10.11.242";

#[track_caller]
fn apply(engine: &ContainerEngine, option: &str, container: &str) {
    let policy = json!({"network": {"allowOut": [ALLOWED], "denyOut": ["0.0.0.0/0"]}});
    let words = ["apply", option, container, "-f", "-"];
    let applied = engine.stage.cli_with_stdin(&words, &policy.to_string());
    assert_eq!(applied.exit_code, 0, "{applied:?}");
}

#[track_caller]
fn report(engine: &ContainerEngine, id: &str) -> Value {
    engine.stage.request("GET", &format!("/agent/v1/sandboxes/{id}"), &Value::Null).json()
}

#[track_caller]
fn assert_enforced(engine: &ContainerEngine, container: &str) {
    assert!(engine.pings(container, ALLOWED), "{container}: {}", report(engine, container));
    assert!(!engine.pings(container, DENIED), "{container}");
}

/// Waits until a sandbox has a status.
#[track_caller]
fn wait_for_status(engine: &ContainerEngine, id: &str, status: &str) {
    let has_it = || (report(engine, id)["status"] == status).then_some(());
    eventually(&format!("{id} is {status}"), has_it)
        .unwrap_or_else(|error| panic!("{error:#}: {}", report(engine, id)));
}

fn a_container_is_found_and_followed(kind: EngineKind, option: &str) {
    let engine = ContainerEngine::start(kind);
    for container in ["web", "other"] {
        engine.start_container(container, &[]);
        assert!(engine.pings(container, DENIED), "there is no policy yet");
        apply(&engine, option, container);
        assert_enforced(&engine, container);
    }
    let first = report(&engine, "web");
    assert!(first["mac"].is_string() && first["addresses"].as_array().is_some(), "{first}");
    for container in ["web", "other"] {
        engine.run(&["stop", "--time", "0", container]);
        wait_for_status(&engine, container, "interface missing");
    }
    let parked = || report(&engine, "web")["interface"].is_null().then_some(());
    eventually("the interface is given up", parked).expect("no interface");
    // In the other order: each may get what the other one had.
    for container in ["other", "web"] {
        engine.run(&["start", container]);
        wait_for_status(&engine, container, "enforcing");
        assert_enforced(&engine, container);
    }
    engine.run(&["restart", "--time", "0", "web"]);
    wait_for_status(&engine, "web", "enforcing");
    let follows = || (engine.pings("web", ALLOWED) && !engine.pings("web", DENIED)).then_some(());
    eventually("the policy is in force after a restart", follows).expect("the policy");
}

#[test]
fn a_container_of_docker_is_found_and_followed() {
    a_container_is_found_and_followed(EngineKind::Docker, "--docker");
}

#[test]
fn a_container_of_podman_is_found_and_followed() {
    a_container_is_found_and_followed(EngineKind::Podman, "--podman");
}

#[test]
fn a_container_that_joins_another_network_is_reported() {
    let engine = ContainerEngine::start(EngineKind::Docker);
    engine.start_container("web", &[]);
    apply(&engine, "--docker", "web");
    engine.run(&["network", "create", "--subnet", SECOND_SUBNET, "second"]);
    engine.run(&["network", "connect", "second", "web"]);
    let is_reported = || {
        let status = report(&engine, "web")["status"].to_string();
        (status.contains("failed") && status.contains("several networks")).then_some(())
    };
    eventually("the status says so", is_reported).expect("the reason");
    assert_enforced(&engine, "web");
    engine.run(&["network", "disconnect", "second", "web"]);
    wait_for_status(&engine, "web", "enforcing");
    engine.run(&["network", "rm", "second"]);
}

#[test]
fn containers_that_exchange_addresses_while_the_agent_is_away_are_followed() {
    let engine = ContainerEngine::start(EngineKind::Podman);
    let options = |last: &str| ["--ip".to_owned(), format!("{PODMAN_PREFIX}.{last}")];
    let start = |container: &str, last: &str| {
        let [option, address] = options(last);
        engine.start_container(container, &[&option, &address]);
    };
    start("web", "11");
    start("other", "12");
    for container in ["web", "other"] {
        apply(&engine, "--podman", container);
    }
    engine.stage.agent_mut().stop().or_fail("stopping the agent");
    engine.run(&["rm", "--force", "--time", "0", "web", "other"]);
    start("other", "11");
    start("web", "12");
    engine.stage.restart_agent();
    for (container, last) in [("web", "12"), ("other", "11")] {
        let address = format!("{PODMAN_PREFIX}.{last}");
        let moved = || (report(&engine, container)["addresses"] == json!([address])).then_some(());
        eventually("it is followed", moved)
            .unwrap_or_else(|error| panic!("{error:#}: {}", report(&engine, container)));
        wait_for_status(&engine, container, "enforcing");
        assert_enforced(&engine, container);
    }
}

#[test]
fn a_name_means_its_container_though_the_id_of_another_one_begins_with_it() {
    let engine = ContainerEngine::start(EngineKind::Docker);
    engine.start_container("other", &[]);
    let id = engine.run(&["inspect", "--format", "{{.Id}}", "other"]);
    let name = &id[..4];
    engine.start_container(name, &[]);
    for container in [name, "other"] {
        apply(&engine, "--docker", container);
    }
    let before = report(&engine, name);
    let left = report(&engine, "other")["interface"].clone();
    engine.run(&["restart", "--time", "0", "other"]);
    let moved = || {
        let now = report(&engine, "other")["interface"].clone();
        (now.is_string() && now != left).then_some(())
    };
    eventually("the other one is followed", moved).expect("another interface");
    let after = report(&engine, name);
    assert_eq!((&after["interface"], &after["status"]), (&before["interface"], &before["status"]));
    assert_enforced(&engine, name);
}

#[test]
fn what_cannot_be_a_sandbox_is_refused_with_the_reason() {
    let engine = ContainerEngine::start(EngineKind::Docker);
    engine.start_container("hostnet", &["--network", "host"]);
    engine.start_container("web", &[]);
    let names = json!({"network": {"allowOut": ["example.com"], "denyOut": ["0.0.0.0/0"]}});
    for (container, policy, reason) in [
        ("hostnet", json!({}), "no interface of its own on the host"),
        ("absent", json!({}), "there is no such container"),
        ("web", names, "is a port of a bridge"),
    ] {
        let words = ["apply", "--docker", container, "-f", "-"];
        let refused = engine.stage.cli_with_stdin(&words, &policy.to_string());
        assert_eq!(refused.exit_code, 2, "{refused:?}");
        assert!(refused.stderr.contains(reason), "{refused:?}");
    }
    engine.run(&["stop", "--time", "0", "web"]);
    let refused = engine.stage.cli(&["apply", "--docker", "web"]);
    assert!(refused.stderr.contains("does not run; start it first"), "{refused:?}");
}

#[test]
fn a_container_of_podman_starts_with_the_policy_of_its_annotation() {
    let engine = ContainerEngine::start(EngineKind::Podman);
    let agent = agent_binary().or_fail("the agent");
    let socket = engine.stage.agent().socket_path();
    let arguments = json!([
        "policy-agent",
        "--socket",
        socket,
        "oci-hook",
        "--policy-directory",
        engine.directory()
    ]);
    engine.write_hook(&json!({
        "version": "1.0.0",
        "hook": {"path": agent, "args": arguments},
        "when": {"annotations": {"^policy-agent/": ".*"}},
        "stages": ["createRuntime", "poststop"],
    }));
    let policy = json!({"network": {"allowOut": [ALLOWED], "denyOut": ["0.0.0.0/0"]}});
    let file = engine.directory().join("restricted.json");
    fs::write(file, policy.to_string()).or_fail("writing a policy");
    let sandboxes = || engine.stage.request("GET", "/agent/v1/sandboxes", &Value::Null).json();
    engine.start_container("web", &["--annotation", "policy-agent/policy=restricted"]);
    assert_eq!(sandboxes()[0]["status"], "enforcing", "{}", sandboxes());
    assert!(engine.pings("web", ALLOWED) && !engine.pings("web", DENIED));
    engine.run(&["rm", "--force", "--time", "0", "web"]);
    let gone = || (sandboxes() == json!([])).then_some(());
    eventually("the sandbox is deleted", gone).expect("no sandbox");
}
