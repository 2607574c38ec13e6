//! The test binaries that cargo builds, and the binary that boots kernels.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Deserializer, Value};

use crate::host;

/// The results of the build.
pub(crate) struct TestExecutables {
    /// The binary `kernels`.
    pub(crate) kernels: PathBuf,
    /// Names and paths of test binaries.
    pub(crate) tests: Vec<(String, PathBuf)>,
}

impl TestExecutables {
    /// Builds tests, all if `tests` is empty. Like `cargo xtask test`, it names no package: that
    /// would select other features and compile everything again.
    pub(crate) fn build(tests: &[String]) -> Result<Self> {
        let mut cargo = host::cargo("test");
        cargo.args(["--no-run", "--message-format=json-render-diagnostics"]);
        let every = ["*".to_owned()];
        for test in if tests.is_empty() { &every[..] } else { tests } {
            cargo.args(["--test", test]);
        }
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
        ensure!(output.status.success(), "the tests cannot be built");
        let messages: Vec<Value> =
            Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>()?;
        let of_kind =
            |kind| messages.iter().filter_map(move |message| executable_of_kind(message, kind));
        let kernels = of_kind("bin").find(|(name, _)| name == "kernels");
        let (_, kernels) = kernels.context("cargo made no bin `kernels`")?;
        Ok(Self { kernels, tests: of_kind("test").collect() })
    }
}

/// The name and binary of a target of this kind, if the cargo message reports one.
fn executable_of_kind(message: &Value, kind: &str) -> Option<(String, PathBuf)> {
    if message["target"]["kind"][0] != kind {
        return None;
    }
    let name = message["target"]["name"].as_str()?;
    Some((name.to_owned(), message["executable"].as_str()?.into()))
}
