//! SIGHUP puts the configuration in force as it is now: all of it, or nothing.

use std::process::Stdio;

use policy_testbed::{
    probe,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, RELOAD_REFUSED, RELOADED, TestSandbox, Testbed},
};
use serde_json::Value;

/// Reloads under load.
const RELOADS: usize = 20;

const API_CONFIG: &str = "[api]\nlisten = \"127.0.0.1:3000\"\n";

fn floor_with(denied: &str) -> String {
    format!("[dataplane]\nplatform_deny_add = [\"{denied}\"]")
}

/// The status of a request to the API over TCP.
#[track_caller]
fn status_over_tcp(stage: &Testbed, method: &str, path: &str, key: &str) -> String {
    let mut curl = stage.network.host.command("curl").or_fail("entering the host");
    curl.args(["-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "30", "-X", method]);
    curl.args(["-H", &format!("X-API-Key: {key}"), &format!("http://127.0.0.1:3000{path}")]);
    let output = curl.stderr(Stdio::null()).output().or_fail("curl");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn metric(sandbox: &TestSandbox, name: &str) -> String {
    let text = sandbox.testbed.request("GET", "/metrics", &Value::Null).body;
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    value.map(str::to_owned).or_fail(&text)
}

#[test]
fn a_new_floor_applies_to_every_sandbox_at_once() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let other = stage.add_sandbox();
    other.allow_only(&ALLOWED_ADDRESSES);
    sandbox.assert_reaches("8.8.8.8");
    stage.reload_config(&floor_with("8.8.8.8"), RELOADED);
    for sandbox in [&sandbox, &other] {
        sandbox.assert_refused("8.8.8.8");
        let explained = stage.cli(&["explain", &sandbox.id, "8.8.8.8", "-o", "json"]).json();
        assert_eq!(explained["reason"], "platform_deny", "{explained}");
    }
    let log = stage.agent_log();
    assert!(log.contains("configuration: dataplane.platform_deny_add: +8.8.8.8"), "{log}");
    assert!(log.contains("2 sandboxes changed"), "{log}");
    stage.reload_config("", RELOADED);
    sandbox.assert_reaches("8.8.8.8");
    other.assert_reaches("8.8.8.8");
    stage.kill_agent();
    stage.restart_agent();
    sandbox.assert_reaches("8.8.8.8");
    stage.stop_agent();
}

#[test]
fn reloads_under_load_lose_nothing_and_leak_nothing() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let mut connection = sandbox.connect_echo(ALLOWED_ADDRESSES[0]);
    let flood = sandbox.start_counted_flood();
    for round in 0..RELOADS {
        let denied = ["198.51.100.0/24", "203.0.113.0/24"][round % 2];
        stage.reload_config(&floor_with(denied), RELOADED);
        sandbox.allow_only(&ALLOWED_ADDRESSES);
        probe::echo(&mut connection, b"on").or_fail("the open connection");
    }
    flood.assert_no_leak_or_loss("configuration reloaded");
    stage.stop_agent();
}

#[test]
fn a_broken_file_leaves_the_configuration_in_force() {
    let (stage, sandbox) = Testbed::with_config_and_sandbox(&floor_with("8.8.8.8"));
    for broken in [
        "[dataplane",
        "[dataplane]\nplatform_deny_add = [\"8.8.8.0/240\"]",
        "[dataplane]\nno_such_key = 1",
        "[api]\nlisten = \"127.0.0.1:3000\"",
        "[api]\nkeys_file = \"/nonexistent/keys.toml\"",
    ] {
        stage.reload_config(broken, RELOAD_REFUSED);
        assert!(stage.agent().is_healthy());
        sandbox.assert_refused("8.8.8.8");
    }
    assert_eq!(metric(&sandbox, "policy_config_last_reload_successful"), "0");
    stage.reload_config("", RELOADED);
    sandbox.assert_reaches("8.8.8.8");
    assert_eq!(metric(&sandbox, "policy_config_last_reload_successful"), "1");
    stage.stop_agent();
}

#[test]
fn what_needs_a_restart_is_named_and_kept() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let config = format!("[proxy]\nmax_connections_per_sandbox = 7\n{}", floor_with("8.8.8.8"));
    stage.reload_config(&config, RELOADED);
    let log = stage.agent_log();
    let told = "proxy.max_connections_per_sandbox: 1024 is now 7; this needs a restart";
    assert!(log.contains(told), "{log}");
    sandbox.assert_refused("8.8.8.8");
    stage.stop_agent();
}

#[test]
fn api_keys_have_roles_and_are_reloaded() {
    let keys = |old: &str| {
        format!(
            "{API_CONFIG}api_keys = [\"{old}\"]\n\
             [[api.keys]]\nname = \"grafana\"\nrole = \"read\"\nkey = \"{old}-read\"\n\
             [[api.keys]]\nname = \"ci\"\nrole = \"sandboxes\"\nkey = \"{old}-ci\"\n"
        )
    };
    let stage = Testbed::with_config(&keys("one"));
    let status = |method: &str, path: &str, key: &str| status_over_tcp(&stage, method, path, key);
    let agents_own = "/agent/v1/sandboxes/nobody";
    for (key, read, deleted, applied) in [
        ("one", "200", "404", "400"),
        ("one-ci", "200", "404", "403"),
        ("one-read", "200", "403", "403"),
        ("two", "401", "401", "401"),
    ] {
        assert_eq!(status("GET", "/agent/v1/sandboxes", key), read, "{key}");
        assert_eq!(status("DELETE", "/sandboxes/nobody", key), deleted, "{key}");
        assert_eq!(status("PUT", agents_own, key), applied, "{key}");
    }
    let log = stage.agent_log();
    assert!(log.contains("key=\"ci\"") && !log.contains("one-ci"), "{log}");
    stage.reload_config(&keys("two"), RELOADED);
    for (key, expected) in [("one", "401"), ("one-read", "401"), ("two", "200"), ("two-ci", "200")]
    {
        assert_eq!(status("GET", "/agent/v1/sandboxes", key), expected, "{key}");
    }
    let log = stage.agent_log();
    assert!(
        log.contains("API keys: ~api_keys[0] (admin) ~grafana (read) ~ci (sandboxes)"),
        "{log}"
    );
    assert!(!log.contains("two-ci"), "{log}");
    stage.stop_agent();
}
