//! What packages and operators take from the command line: its version, completions, manual pages,
//! the log as JSON, and the report of a bug.

use std::fs;

use policy_testbed::{
    agent::agent_binary,
    testbed::{OrFail as _, Testbed},
};
use serde_json::Value;

#[test]
fn version_completions_and_manual_pages_come_from_the_command_line() {
    let stage = Testbed::without_agent("");
    let version = stage.cli(&["--version"]).stdout;
    assert!(version.starts_with("policy-agent ") && version.contains(", ABI "), "{version}");
    for shell in ["bash", "zsh", "fish"] {
        let completions = stage.cli(&["completions", shell]);
        assert_eq!(completions.exit_code, 0, "{completions:?}");
        assert!(completions.stdout.contains("explain"), "{shell}");
    }
    let pages = stage.agent().directory().join("man");
    let written = stage.cli(&["man", &pages.to_string_lossy()]);
    assert_eq!(written.exit_code, 0, "{written:?}");
    for page in ["policy-agent.1", "policy-agent-run.1", "policy-agent-config-show.1"] {
        let text = fs::read_to_string(pages.join(page)).or_fail(page);
        assert!(text.contains(".SH NAME"), "{text}");
    }
}

#[test]
fn a_bug_report_has_the_state_and_no_secrets() {
    let config = "[api]\nlisten = \"127.0.0.1:3000\"\napi_keys = [\"aSecretKey\"]\n\
                  [metrics]\nlisten = \"127.0.0.1:9464\"\ntoken = \"aSecretToken\"\n";
    let (stage, sandbox) = Testbed::with_config_and_sandbox(config);
    let config_path = stage.agent().config_path().to_string_lossy().into_owned();
    let report = stage.agent().directory().join("report.txt");
    let report_path = report.to_string_lossy().into_owned();
    let arguments = ["bugreport", "--config", &config_path, "--file", &report_path];
    let written = stage.cli(&arguments);
    assert_eq!(written.exit_code, 0, "{written:?}");
    let text = fs::read_to_string(&report).or_fail("the report");
    for expected in [&*sandbox.id, "== doctor ==", "policy_sandboxes 1", "ABI ", "api_keys"] {
        assert!(text.contains(expected), "{expected}:\n{text}");
    }
    assert!(!text.contains("aSecret"), "{text}");
    let again = stage.cli(&arguments);
    assert_eq!(again.exit_code, 1, "a file that exists is kept: {again:?}");
    stage.stop_agent();
}

#[test]
fn the_log_is_json_if_asked_for() {
    let stage = Testbed::without_agent("");
    let directory = stage.agent().directory().to_owned();
    let own = ["state", "pins"].map(|name| directory.join(name).to_string_lossy().into_owned());
    let config = "[[slots]]\ninterface = \"none0\"\naddresses = [\"192.0.2.2\"]";
    fs::write(stage.agent().config_path(), config).or_fail("writing");
    let binary = agent_binary().or_fail("the agent");
    let mut command =
        stage.network.host.command(&binary.to_string_lossy()).or_fail("entering the host");
    command.arg("--socket").arg(stage.agent().socket_path());
    command.args(["run", "--log-format", "json", "--state-dir", &own[0], "--bpffs", &own[1]]);
    command.arg("--config").arg(stage.agent().config_path());
    // It cannot start, since there is no BPF file system, but it has warned of the old name.
    let output = command.output().or_fail("running it");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let told =
        |line: &Value| line["message"].as_str().is_some_and(|text| text.contains("[[slots]]"));
    assert!(lines.filter(|line| line["level"] == "WARN").any(|line| told(&line)), "{text}");
}
