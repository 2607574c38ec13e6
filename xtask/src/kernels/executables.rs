//! The binaries that cargo makes of files of tests.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Deserializer, Value};

use crate::host;

/// Builds tests, all if none is named, and returns their names and binaries.
pub fn of(tests: &[String]) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = host::cargo("test");
    cargo.args(["--release", "--no-run", "--package", "policy-tests"]);
    cargo.arg("--message-format=json-render-diagnostics");
    for test in tests {
        cargo.args(["--test", test]);
    }
    if tests.is_empty() {
        cargo.args(["--test", "*"]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages: Vec<Value> =
        Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>()?;
    Ok(messages.iter().filter_map(executable).collect())
}

/// The test that a message of cargo's says was made, as one does for each.
fn executable(message: &Value) -> Option<(String, PathBuf)> {
    if message["target"]["kind"][0] != "test" {
        return None;
    }
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), message["executable"].as_str()?.into()))
}
