//! Schemathesis tries the API by its own document, and finds nothing: the agent refuses what the
//! document does, and answers as it says.

use policy_tests::{
    sdk::client::{self, API, API_KEY},
    stage::{OrFail as _, Stage},
    world::sandbox::Identity,
};

/// Seconds.
const LIMIT: &str = "20";

#[test]
fn schemathesis_finds_nothing() {
    let slots: String = (1..=2).map(|number| client::slot(Identity { number })).collect();
    let stage = Stage::without_agent(&format!("{}{slots}", client::config()));
    let _guests = [stage.sandbox(), stage.sandbox()];
    stage.restart();
    let program = client::installed().join("schemathesis/bin/schemathesis");
    assert!(program.exists(), "Schemathesis is not installed: run `cargo xtask setup`");
    let mut tries = stage.world.host.command(&program.to_string_lossy()).or_fail("the host");
    tries.arg("--config-file").arg(client::sources().join("schemathesis.toml"));
    tries.args(["run", "--seed", "1", "--max-time", LIMIT, "--no-color"]);
    tries.args(["--suppress-health-check", "all", "--generation-database", "none"]);
    tries.args(["-H", &format!("X-API-Key: {API_KEY}"), &format!("http://{API}/openapi.json")]);
    tries.env_clear().env("PYTHONDONTWRITEBYTECODE", "1").env("HOME", stage.agent().directory());
    tries.current_dir(stage.agent().directory());
    let output = tries.output().or_fail("running Schemathesis");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Tested:"), "{said}");
    assert!(stage.agent().is_healthy());
}
