//! The binaries that cargo makes of files of tests.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Deserializer, Value};

use crate::host;

/// Builds the tests, and returns their binaries in this order.
pub fn of(tests: &[String]) -> Result<Vec<PathBuf>> {
    let mut cargo = host::cargo("test");
    cargo.args(["--release", "--no-run", "--package", "policy-tests"]);
    cargo.arg("--message-format=json-render-diagnostics");
    for test in tests {
        cargo.args(["--test", test]);
    }
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let messages: Vec<Value> =
        Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>()?;
    tests.iter().map(|test| executable(&messages, test)).collect()
}

fn executable(messages: &[Value], test: &str) -> Result<PathBuf> {
    let is_it = |message: &&Value| {
        message["target"]["name"] == test && message["target"]["kind"][0] == "test"
    };
    let found = messages.iter().filter(is_it).find_map(|message| message["executable"].as_str());
    let Some(path) = found else { bail!("cargo made no binary of the tests in {test}") };
    Ok(path.into())
}
