//! Schemathesis tests the API against its OpenAPI document and finds no error: the agent rejects
//! what the document rejects, and its responses conform to the document.

use policy_testbed::{
    network::sandbox::SandboxAddressing,
    sdk::e2b_sdk::{self, API_ADDRESS, API_KEY},
    testbed::{OrFail as _, Testbed},
};

/// Seconds.
const MAX_SECONDS: &str = "20";

#[test]
fn schemathesis_finds_nothing() {
    let slots: String = (1..=2)
        .map(|number| e2b_sdk::pool_interface_config(SandboxAddressing { number }))
        .collect();
    let stage = Testbed::without_agent(&format!("{}{slots}", e2b_sdk::agent_config()));
    let _guests = [stage.add_sandbox(), stage.add_sandbox()];
    stage.restart_agent();
    let program = e2b_sdk::install_directory().join("schemathesis/bin/schemathesis");
    assert!(program.exists(), "Schemathesis is not installed: run `cargo xtask setup`");
    let mut tries = stage.network.host.command(&program.to_string_lossy()).or_fail("the host");
    tries.arg("--config-file").arg(e2b_sdk::programs_directory().join("schemathesis.toml"));
    tries.args(["run", "--seed", "1", "--max-time", MAX_SECONDS, "--no-color"]);
    tries.args(["--suppress-health-check", "all", "--generation-database", "none"]);
    tries.args([
        "-H",
        &format!("X-API-Key: {API_KEY}"),
        &format!("http://{API_ADDRESS}/openapi.json"),
    ]);
    tries.env_clear().env("PYTHONDONTWRITEBYTECODE", "1").env("HOME", stage.agent().directory());
    tries.current_dir(stage.agent().directory());
    let output = tries.output().or_fail("running Schemathesis");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Tested:"), "{said}");
    assert!(stage.agent().is_healthy());
}
