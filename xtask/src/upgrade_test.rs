//! `cargo xtask upgrade-test`: build an older agent from the history, and let this version take over
//! from it while traffic flows.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};

use crate::build::DevelopmentBuild;
use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, process};

/// The last commit whose pins have the ABI before this one.
const DEFAULT_REVISION: &str = "487969c93a3955f317ed1025a3ef050144d58a8f";
/// The test, which reads the path of the older agent from this variable.
const TEST: &str = "adoption::older_agent::";
const OLDER_AGENT_VARIABLE: &str = "POLICY_OLDER_AGENT";

pub(crate) fn run(way: Option<ToolchainSource>, revision: Option<&str>) -> Result<()> {
    host::require_root("upgrade-test")?;
    let older = build_older_agent(revision.unwrap_or(DEFAULT_REVISION))?;
    build::build_for_tests(way, DevelopmentBuild::Programs, || {
        system_packages::ensure_tools(ToolCaller::Tests)
    })?;
    let mut test = host::cargo("test");
    test.args(["--test", "resilience", "--", "--ignored", "--nocapture", TEST]);
    process::exec(test.env(OLDER_AGENT_VARIABLE, older))
}

/// Builds the agent of a commit in `target/upgrade/<commit>`, unless it is there already.
fn build_older_agent(revision: &str) -> Result<PathBuf> {
    let commit = format!("{revision}^{{commit}}");
    let commit = process::run_output(host::command("git").args(["rev-parse", "--verify", &commit]));
    let commit = commit.with_context(|| format!("{revision} is no commit: fetch the history"))?;
    let tree = host::target_dir().join("upgrade").join(commit.trim());
    let agent = tree.join("target/release/policy-agent");
    if agent.is_file() {
        return Ok(agent);
    }
    extract_commit(commit.trim(), &tree)?;
    let mut xtask = host::cargo("run");
    // Its own xtask builds it, in its own target directory.
    xtask.current_dir(&tree).env_remove("CARGO_TARGET_DIR");
    process::run_streamed(xtask.args(["--quiet", "--bin", "xtask", "--", "build"]))?;
    Ok(agent)
}

fn extract_commit(commit: &str, tree: &Path) -> Result<()> {
    fs::create_dir_all(tree).with_context(|| format!("cannot make {}", tree.display()))?;
    let mut archive = host::command("git");
    let mut archive = archive.args(["archive", commit]).stdout(Stdio::piped()).spawn()?;
    let files = archive.stdout.take().context("git archive has no output")?;
    process::run_output(host::command("tar").arg("-xC").arg(tree).stdin(files))?;
    let status = archive.wait()?;
    if !status.success() {
        bail!("git archive {commit} failed ({status})");
    }
    Ok(())
}
