//! `cargo xtask build`: compile the kernel programs to `target/bpf/{policy,gate,bench}.o`, then
//! build `target/release/policy-agent`, whose build script embeds them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow};

use crate::toolchain::{self, BpfToolchain, ToolchainSource};
use crate::{host, process};

/// The binaries of `policy-ebpf`. Each becomes one object file.
const BPF_OBJECTS: [&str; 3] = ["policy", "gate", "bench"];

/// What to build in the profile of the tests. Without `-p`, which would select other features, each
/// dependency is compiled only once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DevelopmentBuild {
    /// The agent and the demo.
    Programs,
    /// These, and all tests: in one command, because cargo then compiles the agent and its unit
    /// tests at the same time.
    ProgramsAndTests,
}

impl DevelopmentBuild {
    fn command(self) -> Command {
        let mut cargo = host::cargo("build");
        cargo.args(["--bin=policy-agent", "--bin=demo"]);
        cargo.args((self == Self::ProgramsAndTests).then_some("--tests"));
        cargo
    }
}

/// Builds the kernel programs, then the agent in the release profile.
pub(crate) fn run(way: Option<ToolchainSource>) -> Result<()> {
    build_bpf_objects(&toolchain::ensure_toolchain(way)?)?;
    process::run_streamed(host::cargo("build").args(["--release", "--package", "policy-agent"]))?;
    split_debug_info(&host::target_dir().join("release/policy-agent"))
}

/// Builds the kernel programs, then `what` in the profile of the tests. Runs `meanwhile` in parallel:
/// it mostly waits for the network.
pub(crate) fn build_for_tests(
    way: Option<ToolchainSource>,
    what: DevelopmentBuild,
    meanwhile: impl FnOnce() -> Result<()> + Send,
) -> Result<()> {
    thread::scope(|scope| {
        let meanwhile = scope.spawn(meanwhile);
        let dependencies = scope.spawn(|| prebuild_dependencies(what));
        let objects =
            toolchain::ensure_toolchain(way).and_then(|toolchain| build_bpf_objects(&toolchain));
        let panicked = |_| anyhow!("a part of the set-up panicked");
        dependencies.join().map_err(panicked)?;
        meanwhile.join().map_err(panicked)??;
        objects
    })?;
    process::run_streamed(&mut what.command())
}

/// On a machine without compiled kernel programs, compiles what does not embed them, above all the
/// dependencies of the agent. Cargo keeps going after the agent's build script fails for lack of
/// them.
fn prebuild_dependencies(what: DevelopmentBuild) {
    if BPF_OBJECTS.iter().all(|name| bpf_object_path(name).is_file()) {
        return;
    }
    let mut cargo = what.command();
    cargo.arg("--keep-going");
    // This always fails. The full build reports the real errors.
    let _fails =
        process::run_logged_quietly("compiling dependencies beside it", "dependencies", &mut cargo);
}

/// Builds the kernel programs and copies them to where the agent's build script expects them.
pub(crate) fn build_bpf_objects(toolchain: &BpfToolchain) -> Result<()> {
    process::run_streamed(toolchain.cargo("build")?.arg("--bins"))?;
    let from = host::target_dir().join("bpf").join(toolchain::BPF_TARGET).join("release");
    for name in BPF_OBJECTS {
        copy_if_changed(&from.join(name), &bpf_object_path(name))?;
    }
    Ok(())
}

fn bpf_object_path(name: &str) -> PathBuf {
    host::target_dir().join("bpf").join(name).with_extension("o")
}

/// Keeps the modification time of an unchanged object, so that the agent is not rebuilt.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    fs::write(to, new).with_context(|| format!("writing {}", to.display()))
}

/// Moves the debug information of a program to `<program>.debug`. Debuggers and backtraces find it
/// by the remaining link.
fn split_debug_info(program: &Path) -> Result<()> {
    let debug = program.with_extension("debug");
    let stripped = program.with_extension("stripped");
    let objcopy = || host::command("objcopy");
    process::run_output(objcopy().arg("--only-keep-debug").arg(program).arg(&debug))?;
    let link = format!("--add-gnu-debuglink={}", debug.display());
    process::run_output(objcopy().args(["--strip-all", &link]).arg(program).arg(&stripped))?;
    fs::rename(&stripped, program).with_context(|| format!("writing {}", program.display()))
}
