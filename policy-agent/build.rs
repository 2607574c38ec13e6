//! Copies the kernel programs to `OUT_DIR`, from where the dataplane embeds them.
//!
//! They are built for another target by another toolchain, so cargo cannot build them here:
//! `cargo xtask build` does, and leaves them in `target/bpf` of the workspace, or wherever
//! `POLICY_BPF_DIR` points.

use std::{env, fs, path::PathBuf, process::ExitCode};

const OBJECTS: [&str; 2] = ["policy.o", "gate.o"];

fn main() -> ExitCode {
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
