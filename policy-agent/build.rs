//! Copies the kernel programs to `OUT_DIR`, from where the dataplane embeds them.
//!
//! They are built for another target by another toolchain, so cargo cannot build them here:
//! `cargo xtask build` does, and leaves them in `target/bpf` of the workspace, or wherever
//! `POLICY_BPF_DIR` points.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const OBJECTS: [&str; 2] = ["policy.o", "gate.o"];

/// The commit that `--version` shows. Builds outside of a repository may set it.
const COMMIT_VARIABLE: &str = "POLICY_AGENT_COMMIT";
/// The commit of builds that are not released: asking git would rebuild the crate at every commit.
const NO_COMMIT: &str = "development";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={COMMIT_VARIABLE}");
    println!("cargo::rustc-env={COMMIT_VARIABLE}={}", commit());
    println!("cargo::rerun-if-env-changed=POLICY_BPF_DIR");
    match copy_objects() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

fn copy_objects() -> Result<(), String> {
    let from = objects_directory()?;
    let to = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run cargo")?);
    for object in OBJECTS {
        let source = from.join(object);
        println!("cargo::rerun-if-changed={}", source.display());
        fs::copy(&source, to.join(object)).map_err(|error| {
            format!(
                "no kernel program at {} ({error}): run `cargo xtask build`, which builds it first",
                source.display()
            )
        })?;
    }
    Ok(())
}

fn objects_directory() -> Result<PathBuf, String> {
    if let Some(directory) = env::var_os("POLICY_BPF_DIR") {
        return Ok(directory.into());
    }
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set")?;
    let package = PathBuf::from(package);
    let workspace = package.parent().ok_or("the package is not in a workspace")?;
    Ok(workspace.join("target").join("bpf"))
}

fn commit() -> String {
    let given = env::var(COMMIT_VARIABLE).ok().filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    given.or_else(|| is_release.then(git_commit)?).unwrap_or_else(|| NO_COMMIT.to_owned())
}

/// The commit that is checked out. `None` outside of a repository.
fn git_commit() -> Option<String> {
    // The log of HEAD grows with every commit and checkout.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
