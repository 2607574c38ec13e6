//! `cargo xtask build`: the kernel programs as `target/bpf/{policy,gate,bench}.o`, then
//! `target/release/policy-agent`, into which its build script embeds them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::toolchain::{self, Toolchain, Way};
use crate::{host, step};

/// The bins of `policy-ebpf`, each of which becomes one object.
const OBJECTS: [&str; 3] = ["policy", "gate", "bench"];

pub fn run(way: Option<Way>) -> Result<()> {
    let toolchain = toolchain::ensure(way)?;
    objects(&toolchain)?;
    agent()
}

/// Builds the kernel programs, and puts them where the agent's build script looks for them.
pub fn objects(toolchain: &Toolchain) -> Result<()> {
    step::streamed(toolchain.cargo("build")?.arg("--bins"))?;
    let to = host::target_dir().join("bpf");
    let from = to.join(toolchain::TARGET).join("release");
    for name in OBJECTS {
        copy_if_changed(&from.join(name), &to.join(name).with_extension("o"))?;
    }
    Ok(())
}

fn agent() -> Result<()> {
    step::streamed(host::cargo("build").args(["--release", "--package", "policy-agent"]))
}

/// An unchanged object keeps its time of modification, so that the agent is not built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("writing {}", to.display()))
}
