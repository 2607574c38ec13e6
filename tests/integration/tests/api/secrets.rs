//! Secrets: clients and the operator set them, and nothing shows their values.

use std::{fs, os::unix::fs::PermissionsExt as _};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use policy_testbed::{
    agent::ApiResponse,
    testbed::{OrFail as _, SharedTestbed, Testbed},
    wait::eventually,
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

/// A value that nothing but the state may hold.
const VALUE: &str = "hush-hush-0815";

#[track_caller]
fn request(stage: &Testbed, method: &str, path: &str, body: &Value, status: u16) -> ApiResponse {
    let answer = stage.request(method, path, body);
    assert_eq!(answer.status, status, "{method} {path}: {}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {path}");
    assert!(!answer.body.contains("hush-hush"), "{method} {path}: {}", answer.body);
    answer
}

/// A secret in the list.
fn listed(stage: &Testbed, name: &str) -> Option<Value> {
    let list = request(stage, "GET", "/secrets", &Value::Null, 200).json();
    list.as_array().or_fail("a list").iter().find(|secret| secret["name"] == name).cloned()
}

#[track_caller]
fn assert_log_holds_no_value(stage: &Testbed) {
    let log = fs::read_to_string(stage.agent().log_path()).or_fail("reading the log");
    assert!(!log.contains("hush-hush"), "{log}");
}

#[test]
fn a_client_creates_updates_and_deletes_a_secret() {
    let stage = TESTBED.testbed();
    let body = json!({ "name": " Client ", "value": VALUE, "metadata": { "owner": "web" } });
    let made = request(&stage, "POST", "/secrets", &body, 201).json();
    assert_eq!((&made["name"], &made["currentVersion"]), (&json!("client"), &json!(1)));
    let id = made["secretID"].as_str().or_fail("an ID").to_owned();
    assert!(id.starts_with("sec_"), "{id}");
    request(&stage, "POST", "/secrets", &body, 409);
    for path in ["/secrets/client", &format!("/secrets/{id}")] {
        assert_eq!(request(&stage, "GET", path, &Value::Null, 200).json(), made);
    }
    let update = json!({ "value": format!("{VALUE}\r\n") });
    let updated = request(&stage, "POST", &format!("/secrets/{id}"), &update, 200).json();
    assert_eq!((&updated["currentVersion"], &updated["metadata"]), (&json!(2), &made["metadata"]));
    assert_eq!(listed(&stage, "client"), Some(updated));
    request(&stage, "DELETE", "/secrets/client", &Value::Null, 204);
    for method in ["GET", "DELETE"] {
        request(&stage, method, "/secrets/client", &Value::Null, 404);
    }
    assert_log_holds_no_value(&stage);
}

#[test]
fn a_wrong_secret_is_refused_and_its_value_not_quoted() {
    let stage = TESTBED.testbed();
    let long = VALUE.repeat(5000);
    for (body, words) in [
        (json!({ "value": VALUE }), "name: is missing"),
        (json!({ "name": "wrong" }), "value: is missing"),
        (json!({ "name": "sec_wrong", "value": VALUE }), "name: "),
        (json!({ "name": "wrong name", "value": VALUE }), "name: "),
        (json!({ "name": "wrong", "value": "" }), "value: is empty"),
        (json!({ "name": "wrong", "value": long }), "value: is longer than 65536 bytes"),
        (json!({ "name": "wrong", "value": [VALUE] }), "value: must be "),
        (json!({ "name": "wrong", "value": VALUE, "metadata": { "a": 1 } }), "metadata.a: must be"),
        (json!({ "name": "wrong", "values": VALUE }), "values: unknown field"),
    ] {
        let refused = request(&stage, "POST", "/secrets", &body, 400);
        let message = refused.json()["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.starts_with(words), "{message}");
    }
    request(&stage, "POST", "/secrets/nosuch", &json!({ "value": VALUE }), 404);
    assert_eq!(listed(&stage, "wrong"), None);
}

#[test]
fn the_command_line_takes_a_value_from_standard_input() {
    let stage = TESTBED.testbed();
    for (value, done) in [("one\n", "created, version 1"), (VALUE, "updated, version 2")] {
        let set = stage.cli_with_stdin(&["secrets", "set", "Line", "--metadata", "a=b"], value);
        assert_eq!((set.exit_code, set.stdout), (0, format!("line {done}\n")), "{}", set.stderr);
    }
    let list = stage.cli(&["secrets", "list"]);
    assert!(list.stdout.contains("line") && !list.stdout.contains("hush-hush"), "{list:?}");
    let json = stage.cli(&["secrets", "list", "-o", "json"]).json();
    let line = json.as_array().or_fail("a list").iter().find(|secret| secret["name"] == "line");
    assert_eq!(line.or_fail("the secret")["metadata"], json!({ "a": "b" }));
    let empty = stage.cli_with_stdin(&["secrets", "set", "line"], "\n");
    assert_eq!(empty.exit_code, 2, "{empty:?}");
    assert_eq!(stage.cli(&["secrets", "delete", "line"]).exit_code, 0);
    assert_eq!(stage.cli(&["secrets", "delete", "line"]).exit_code, 1);
}

#[test]
fn secrets_outlive_the_agent_in_a_private_file() {
    let stage = Testbed::with_config("");
    let body = json!({ "name": "lasting", "value": VALUE });
    let made = request(&stage, "POST", "/secrets", &body, 201).json();
    let file = stage.agent().state_dir().join("secrets.json");
    let mode = file.metadata().or_fail("the file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    stage.kill_agent();
    stage.restart_agent();
    assert_eq!(listed(&stage, "lasting"), Some(made));
    let report = stage.agent().directory().join("report.txt");
    let path = report.to_string_lossy();
    let config = stage.agent().config_path();
    let arguments = ["bugreport", "--config", &config.to_string_lossy(), "--file", &path];
    let written = stage.cli(&arguments);
    assert_eq!(written.exit_code, 0, "{written:?}");
    let report = fs::read_to_string(&report).or_fail("reading the report");
    assert!(!report.contains("hush-hush"), "the report holds a value");
    assert_log_holds_no_value(&stage);
}

#[test]
fn the_operators_secrets_are_read_again_and_a_broken_file_keeps_the_old_ones() {
    let stage = Testbed::without_agent("");
    let (file, directory) =
        (stage.agent().directory().join("s.toml"), stage.agent().directory().join("mounted"));
    fs::create_dir(&directory).or_fail("making a directory");
    fs::write(&file, format!("operator = \"{VALUE}\"\n")).or_fail("writing secrets");
    fs::write(directory.join("mounted"), format!("{VALUE}\n")).or_fail("writing a secret");
    let path = stage.agent().config_path();
    let config = fs::read_to_string(&path).or_fail("reading the configuration");
    let sources = format!("[secrets]\nfile = {file:?}\ndirectory = {directory:?}\n");
    fs::write(&path, format!("{config}\n{sources}")).or_fail("writing it");
    stage.restart_agent();

    let version = |name: &str| listed(&stage, name).map(|secret| secret["currentVersion"].clone());
    assert_eq!(version("operator"), Some(json!(1)));
    assert_eq!(version("mounted"), Some(json!(1)));
    let update = json!({ "value": "x" });
    let refused = request(&stage, "POST", "/secrets/operator", &update, 409);
    assert!(refused.body.contains("[secrets] file"), "{}", refused.body);
    request(&stage, "DELETE", "/secrets/mounted", &Value::Null, 409);

    fs::write(directory.join("mounted"), "hush-hush-2").or_fail("writing a secret");
    eventually("the new value", || (version("mounted") == Some(json!(2))).then_some(()))
        .or_fail("reading a file again");

    fs::write(&file, "operator = \"hush-hush-3").or_fail("breaking the file");
    let log = || fs::read_to_string(stage.agent().log_path()).or_fail("reading the log");
    let told = "a source of secrets is broken";
    eventually("the problem in the log", || log().contains(told).then_some(()))
        .or_fail("noticing a broken file");
    assert_eq!(version("operator"), Some(json!(1)));
    let doctor = stage.cli(&["doctor", "--config", &path.to_string_lossy()]);
    let finding = doctor.stdout.lines().find(|line| line.contains("s.toml: line 1: is not TOML"));
    assert!(finding.is_some_and(|line| line.starts_with("degraded")), "{}", doctor.stdout);
    assert!(!doctor.stdout.contains("hush-hush"), "{}", doctor.stdout);

    fs::write(&file, "operator = \"hush-hush-4\"\n").or_fail("mending the file");
    let pid = stage.agent().pid().or_fail("the agent's process");
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGHUP).or_fail("signalling");
    eventually("the mended file", || (version("operator") == Some(json!(2))).then_some(()))
        .or_fail("reloading");
    assert_log_holds_no_value(&stage);
}
