//! `cargo xtask build`: the kernel programs as `target/bpf/{policy,gate,bench}.o`, then
//! `target/release/policy-agent`, into which its build script embeds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::toolchain::{self, Toolchain, Way};
use crate::{host, step};

/// The bins of `policy-ebpf`, each of which becomes one object.
const OBJECTS: [&str; 3] = ["policy", "gate", "bench"];

/// What the demo and the tests run. They choose no package, which would choose features as well: so
/// each dependency is compiled once for all of them.
const DEVELOPMENT: [&str; 3] = ["build", "--bin=policy-agent", "--bin=demo"];

/// The kernel programs, then the agent as users run it.
pub fn run(way: Option<Way>) -> Result<()> {
    objects(&toolchain::ensure(way)?)?;
    step::streamed(host::cargo("build").args(["--release", "--package", "policy-agent"]))?;
    separate_debug_information(&host::target_dir().join("release/policy-agent"))
}

/// The kernel programs, then the agent and the demo in the profile of the tests. `meanwhile` is done
/// beside it: it waits for the network, most likely.
pub fn development(way: Option<Way>, meanwhile: impl FnOnce() -> Result<()> + Send) -> Result<()> {
    thread::scope(|scope| {
        let meanwhile = scope.spawn(meanwhile);
        let dependencies = scope.spawn(dependencies);
        let objects = toolchain::ensure(way).and_then(|toolchain| objects(&toolchain));
        let panicked = |_| anyhow!("a part of the set-up panicked");
        dependencies.join().map_err(panicked)?;
        meanwhile.join().map_err(panicked)??;
        objects
    })?;
    step::streamed(host::cargo(DEVELOPMENT[0]).args(&DEVELOPMENT[1..]))
}

/// Compiles, on a machine that has no kernel programs yet, what does not embed them: cargo goes on
/// without the agent, whose build script finds none.
fn dependencies() {
    if OBJECTS.iter().all(|name| object(name).is_file()) {
        return;
    }
    let mut cargo = host::cargo(DEVELOPMENT[0]);
    cargo.args(&DEVELOPMENT[1..]).arg("--keep-going");
    // It fails in any case. What is really wrong will be seen when all is built.
    let _fails = step::silent("compiling dependencies beside it", "dependencies", &mut cargo);
}

/// Builds the kernel programs, and puts them where the agent's build script looks for them.
pub fn objects(toolchain: &Toolchain) -> Result<()> {
    step::streamed(toolchain.cargo("build")?.arg("--bins"))?;
    let from = host::target_dir().join("bpf").join(toolchain::TARGET).join("release");
    for name in OBJECTS {
        copy_if_changed(&from.join(name), &object(name))?;
    }
    Ok(())
}

fn object(name: &str) -> PathBuf {
    host::target_dir().join("bpf").join(name).with_extension("o")
}

/// An unchanged object keeps its time of modification, so that the agent is not built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("writing {}", to.display()))
}

/// Moves the debug information of a program to `<program>.debug`, where debuggers and backtraces look
/// for it by the link that stays.
fn separate_debug_information(program: &Path) -> Result<()> {
    let debug = program.with_extension("debug");
    let stripped = program.with_extension("stripped");
    let objcopy = || host::command("objcopy");
    step::output(objcopy().arg("--only-keep-debug").arg(program).arg(&debug))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    step::output(objcopy().args(["--strip-all", &link]).arg(program).arg(&stripped))?;
    fs::rename(&stripped, program).with_context(|| format!("writing {}", program.display()))
}
