//! The command line: its output and its exit codes.

use std::{fs, process::Stdio};

use policy_testbed::{
    agent::agent_binary,
    test_servers,
    testbed::{OrFail as _, SharedTestbed, TestSandbox, Testbed},
};
use serde_json::{Value, json};

static TESTBED: SharedTestbed = SharedTestbed::with_config("");

fn deny_one_spec(sandbox: &TestSandbox, address: &str) -> Value {
    sandbox.sandbox_spec(&json!({ "network": { "denyOut": [address] } }))
}

#[test]
fn apply_takes_an_object_an_array_and_json_lines() {
    let (one, other) = (TESTBED.add_sandbox(), TESTBED.add_sandbox());
    let texts = |address: &str| {
        let (one, other) = (deny_one_spec(&one, address), deny_one_spec(&other, address));
        [json!([one, other]).to_string(), format!("{one}\n{other}\n"), format!("{one}{other}")]
    };
    for address in ["8.8.8.8", "1.1.1.1"] {
        for text in texts(address) {
            let applied = one.testbed.cli_with_stdin(&["apply", "-f", "-"], &text);
            assert_eq!(applied.exit_code, 0, "{applied:?}");
            for id in [&one.id, &other.id] {
                assert!(applied.stdout.contains(id.as_str()), "{applied:?}");
            }
            one.assert_refused(address);
            other.assert_refused(address);
        }
    }
    let single = deny_one_spec(&one, "8.8.8.9").to_string();
    let file = one.testbed.agent().directory().join("single.json");
    fs::write(&file, single).or_fail("writing a file");
    let applied = one.testbed.cli(&["apply", "-f", &file.to_string_lossy()]);
    assert_eq!(applied.exit_code, 0, "{applied:?}");
    one.assert_refused("8.8.8.9");
    other.assert_reaches("8.8.8.9");
}

#[test]
fn check_prints_the_normalised_spec_without_an_agent() {
    let sandbox = TESTBED.add_sandbox();
    let spec = sandbox.sandbox_spec(&json!({
        "network": { "denyOut": ["10.0.0.1/8", "::ffff:8.8.8.8", "2001:DB8::1/32"] },
    }));
    let nowhere = ["--socket", "/nonexistent/agent.sock", "check", "-f", "-"];
    let table = sandbox.testbed.cli_with_stdin(&nowhere, &spec.to_string());
    assert_eq!(table.exit_code, 0, "{table:?}");
    for meant in ["10.0.0.0/8", "8.8.8.8/32", "2001:db8::/32"] {
        assert!(table.stdout.contains(meant), "{meant}: {table:?}");
    }
    let json = [&nowhere[..], &["-o", "json"]].concat();
    let printed = sandbox.testbed.cli_with_stdin(&json, &spec.to_string());
    let again = sandbox.testbed.cli_with_stdin(&json, &printed.stdout);
    assert_eq!((printed.exit_code, printed.json()), (0, again.json()), "what it prints it takes");
}

#[test]
fn what_has_no_effect_gets_warnings_and_strictly_errors() {
    let sandbox = TESTBED.add_sandbox();
    let network = json!({
        "allowOut": ["localhost", "10.0.0.5", "*.a.example", "b.a.example"],
        "denyOut": ["0.0.0.0/0"], "dnsServers": ["10.0.0.53"],
    });
    let spec = sandbox.sandbox_spec(&json!({ "network": network })).to_string();
    let warned = [
        "network.allowOut[0]: \"localhost\"",
        "network.allowOut[1]: \"10.0.0.5\"",
        "network.allowOut[3]: \"b.a.example\"",
        "network.dnsServers[0]: \"10.0.0.53\"",
    ];
    for command in ["check", "apply"] {
        let strict = sandbox.testbed.cli_with_stdin(&[command, "--strict", "-f", "-"], &spec);
        assert_eq!((strict.exit_code, strict.stdout.as_str()), (2, ""), "{strict:?}");
        assert!(strict.stderr.contains(warned[0]), "{strict:?}");
        let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
        let answer = sandbox.testbed.request("GET", &path, &Value::Null);
        assert_eq!(answer.status, 404, "strictly, nothing is changed");
        let ran = sandbox.testbed.cli_with_stdin(&[command, "-o", "json", "-f", "-"], &spec);
        assert_eq!(ran.exit_code, 0, "{ran:?}");
        assert!(!ran.json().is_null() && !ran.stdout.contains("platform_deny"), "{ran:?}");
        assert_eq!(ran.stderr.lines().count(), warned.len(), "{ran:?}");
        for (line, problem) in ran.stderr.lines().zip(warned) {
            let start = format!("warning: sandbox {}: {problem}: ", sandbox.id);
            assert!(line.starts_with(&start), "{line}");
        }
    }
    let spec = serde_json::from_str(&spec).or_fail("JSON");
    let path = format!("/agent/v1/sandboxes/{}", sandbox.id);
    let answer = sandbox.testbed.request("PUT", &path, &spec);
    assert_eq!(answer.json()["warnings"].as_array().map(Vec::len), Some(4), "{}", answer.body);
    let strict = sandbox.testbed.request("PUT", &format!("{path}?strict=true"), &spec);
    assert_eq!(strict.status, 400, "{}", strict.body);
}

#[test]
fn get_lists_and_shows() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    sandbox.assert_refused("8.8.8.8");
    let list = sandbox.testbed.cli(&["get"]);
    assert_eq!(list.exit_code, 0);
    let line = list.stdout.lines().find(|line| line.contains(&sandbox.id)).or_fail("its line");
    assert!(line.contains(&sandbox.interface) && line.contains("enforcing"), "{line}");
    let shown = sandbox.testbed.cli(&["get", &sandbox.id, "-o", "json"]).json();
    assert_eq!(shown["counters"]["deny_out"]["packets"], 3);
    let all = sandbox.testbed.cli(&["get", "-o", "json"]).json();
    assert!(all.as_array().is_some_and(|all| !all.is_empty()), "{all}");
}

#[test]
fn delete_detaches_and_forgets() {
    let (one, other) = (TESTBED.add_sandbox(), TESTBED.add_sandbox());
    for sandbox in [&one, &other] {
        sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    }
    let deleted = one.testbed.cli(&["delete", &one.id, "nosuch", &other.id]);
    assert_eq!(deleted.exit_code, 1, "one of them is unknown: {deleted:?}");
    assert!(deleted.stderr.contains("nosuch"), "{deleted:?}");
    for sandbox in [&one, &other] {
        sandbox.assert_reaches("8.8.8.8");
        assert_eq!(sandbox.testbed.cli(&["get", &sandbox.id]).exit_code, 1);
    }
}

#[test]
fn explain_says_in_words_what_happens() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    let denied = sandbox.testbed.cli(&["explain", &sandbox.id, "8.8.8.8", "--proto", "udp"]);
    assert_eq!(denied.exit_code, 3, "{denied:?}");
    for word in ["denied", "deny_out", "network.denyOut[0]"] {
        assert!(denied.stdout.contains(word), "{denied:?}");
    }
    let allowed = sandbox.testbed.cli(&["explain", &sandbox.id, "8.8.8.9", "--port", "443"]);
    assert_eq!((allowed.exit_code, allowed.stderr.as_str()), (0, ""), "{allowed:?}");
}

#[test]
fn wrong_usage_exits_with_two() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({}));
    let wrong: [&[&str]; 13] = [
        &[],
        &["nonsense"],
        &["apply"],
        &["apply", "-f", "/nonexistent/file.json"],
        &["check", "-f", "/nonexistent/file.json"],
        &["delete"],
        &["explain"],
        &["explain", &sandbox.id, "*.example.com"],
        &["explain", &sandbox.id, "https://example.com", "--port", "80"],
        &["explain", &sandbox.id, "8.8.8.8", "--port", "99999"],
        &["explain", &sandbox.id, "8.8.8.8", "--proto", "tpc"],
        &["get", "-o", "yaml"],
        &["run", "--config", "/nonexistent/agent.toml"],
    ];
    for arguments in wrong {
        let ran = sandbox.testbed.cli(arguments);
        assert_eq!(ran.exit_code, 2, "{arguments:?}: {ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
    }
}

#[test]
fn what_is_missing_exits_with_one() {
    let stage = TESTBED.testbed();
    let spec = r#"{"sandboxID":"a","interface":"lo","addresses":["10.11.0.2"]}"#;
    for arguments in [
        &["get", "nosuch"][..],
        &["delete", "nosuch"],
        &["explain", "nosuch", "https://example.com"],
        &["events", "--sandbox", "nosuch"],
        &["events", "--sandbox", "nosuch", "--follow"],
    ] {
        let ran = stage.cli(arguments);
        assert_eq!(
            (ran.exit_code, ran.stderr.contains("no sandbox \"nosuch\"")),
            (1, true),
            "{ran:?}"
        );
        assert!(!ran.stderr.contains("create"), "nobody who deletes wants to create: {ran:?}");
    }
    let all = stage.cli(&["events", "--all"]);
    assert_eq!((all.exit_code, all.stderr.contains("--follow")), (0, true), "{all:?}");
    let nowhere = ["--socket", "/nonexistent/agent.sock"];
    for command in [&["get"][..], &["apply", "-f", "-"], &["delete", "a"], &["events"]] {
        let ran = stage.cli_with_stdin(&[&nowhere, command].concat(), spec);
        assert_eq!(ran.exit_code, 1, "{command:?}: {ran:?}");
        let first = ran.stderr.lines().next().unwrap_or_default();
        assert!(first.contains("/nonexistent/agent.sock"), "it says where: {ran:?}");
    }
}

#[test]
fn a_wrong_configuration_of_the_agent_is_named() {
    let stage = Testbed::without_agent("");
    let file = stage.agent().directory().join("wrong.toml");
    let wrong = [
        ("nonsense = 1", "nonsense"),
        ("state_dir = \"relative\"", "state_dir"),
        ("default_nameserver = \"dns\"", "default_nameserver"),
        ("[dataplane]\nmode = \"fast\"", "fast"),
        ("[dataplane]\nattach = \"hope\"", "hope"),
        ("[dataplane]\ndeny_action = \"shout\"", "shout"),
        ("[dataplane]\ninbound = \"some\"", "some"),
        ("[dataplane]\nplatform_deny = [\"10.0.0.0/8\", \"10.0.0.0/40\"]", "platform_deny[1]"),
        ("[dataplane]\nplatform_deny_add = [\"10.0.0.0/40\"]", "platform_deny_add[0]"),
        ("[dataplane]\nplatform_allow = [\"example.com\"]", "platform_allow[0]"),
        ("[api]\nlisten = \"127.0.0.1:3000\"", "api_keys"),
        ("[api]\nlisten = \"nowhere\"", "listen"),
        ("[dataplane", "TOML"),
    ];
    for (text, named) in wrong {
        fs::write(&file, text).or_fail("writing a configuration");
        let ran = stage.cli(&["run", "--config", &file.to_string_lossy()]);
        assert_eq!(ran.exit_code, 2, "{text}: {ran:?}");
        assert!(ran.stderr.contains(named), "{text}: {ran:?}");
    }
}

#[test]
fn doctor_finds_everything_there() {
    let stage = TESTBED.testbed();
    let config = stage.agent().config_path();
    let doctor = stage.cli(&["doctor", "--config", &config.to_string_lossy()]);
    assert_eq!((doctor.exit_code, doctor.stdout.contains("missing")), (0, false), "{doctor:?}");
    let findings =
        stage.cli(&["doctor", "--config", &config.to_string_lossy(), "-o", "json"]).json();
    assert!(findings.as_array().is_some_and(|findings| findings.len() > 5), "{findings}");
    let nowhere = stage.cli(&["doctor", "--bpffs", "/nonexistent"]);
    assert_eq!((nowhere.exit_code, nowhere.stdout.contains("missing")), (1, true), "{nowhere:?}");
    assert!(nowhere.stdout.contains("mount -t bpf"), "it says how to mend it: {nowhere:?}");
}

#[test]
fn doctor_names_what_the_configuration_lacks() {
    let stage = Testbed::without_agent(
        "[api]\nlisten = \"127.0.0.1:3000\"\napi_keys = [\"k\"]\n\
         [proxy]\nresolvers = [\"192.0.2.53:53\"]\n\
         [gateway]\ndomain = \"a.example\"\ntls_cert = \"/nonexistent.pem\"\ntls_key = \"/nonexistent\"\n\
         [[interfaces]]\ninterface = \"nonexistent0\"\naddresses = [\"10.11.0.2\"]",
    );
    let taken = stage
        .network
        .host
        .enter()
        .and_then(|_inside| std::net::TcpListener::bind("127.0.0.1:3000").map_err(Into::into));
    let _taken = taken.or_fail("listening");
    let binary = agent_binary().or_fail("the agent");
    let mut doctor =
        stage.network.host.command(&binary.to_string_lossy()).or_fail("entering the host");
    doctor.arg("--socket").arg(stage.agent().socket_path()).args(["doctor", "-o", "json"]);
    let output = doctor.arg("--config").arg(stage.agent().config_path()).output().or_fail("doctor");
    assert_eq!(output.status.code(), Some(1));
    let findings: Value = serde_json::from_slice(&output.stdout).or_fail("JSON");
    let findings = findings.as_array().cloned().or_fail("a list");
    let missing = |what: &str, found: &str| {
        let is_it = |finding: &&Value| {
            finding["state"] == "missing"
                && finding["what"] == what
                && finding["found"].as_str().is_some_and(|text| text.contains(found))
        };
        let finding = findings.iter().find(is_it);
        let fix = finding.and_then(|finding| finding["fix"].as_str());
        assert!(fix.is_some_and(|fix| !fix.is_empty()), "{what} {found}: {findings:#?}");
    };
    missing("interface", "nonexistent0");
    missing("listener", "api.listen 127.0.0.1:3000");
    missing("certificate", "/nonexistent.pem");
    missing("resolvers", "192.0.2.53:53");
}

#[test]
fn a_closed_pipe_is_no_error() {
    let sandbox = TESTBED.add_sandbox();
    sandbox.apply_network(json!({ "denyOut": ["8.8.8.8"] }));
    for _ in 0..20 {
        sandbox.probe_udp("8.8.8.8", test_servers::ECHO_PORT);
    }
    let mut command = sandbox.testbed.agent().cli_command().or_fail("policy-agent");
    command.args(["get", "-o", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().or_fail("starting");
    drop(child.stdout.take());
    let output = child.wait_with_output().or_fail("waiting");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}
