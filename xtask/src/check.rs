//! `cargo xtask check`: check links between documents, the structure of the source, formatting,
//! lints and documentation, for the host and the BPF target, and audit the dependencies.

use anyhow::{Context as _, Result};

use crate::toolchain::{self, ToolchainSource};
use crate::{apt_get, build, dependency_audit, host, links, process, structure};

/// Debian's packages of rustfmt and clippy.
const DEBIAN_PACKAGES: [&str; 2] = ["rustfmt-web", "rust-web-clippy"];

/// All packages except the one for the BPF target: the default members and the benchmark. Cargo
/// selects the same features for them as for the default members, so that dependencies are checked
/// once.
const HOST_PACKAGES: [&str; 3] = ["--workspace", "--exclude", "policy-ebpf"];

pub(crate) fn run(way: Option<ToolchainSource>) -> Result<()> {
    // The fastest check comes first. It needs no build.
    links::check()?;
    structure::check()?;
    ensure_host_components()?;
    process::run_streamed(host::cargo("fmt").args(["--all", "--check"]))
        .context("formatting differs: run `cargo fmt --all`")?;

    let toolchain = toolchain::ensure_toolchain(way)?;
    process::run_streamed(toolchain.clippy()?.args(["--bins", "--", "-D", "warnings"]))?;
    // The agent's build script embeds the objects, so even clippy needs them.
    build::build_bpf_objects(&toolchain)?;

    let mut clippy = host::cargo("clippy");
    clippy.args(HOST_PACKAGES).args(["--all-targets", "--", "-D", "warnings"]);
    process::run_streamed(&mut clippy)?;
    let mut doc = host::cargo("doc");
    doc.args(HOST_PACKAGES).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    process::run_streamed(&mut doc)?;
    // The audit comes last, so that its warning about skipped checks is not overlooked.
    dependency_audit::check_dependencies()
}

fn ensure_host_components() -> Result<()> {
    let missing = ["fmt", "clippy"]
        .iter()
        .any(|part| process::run_output(host::cargo(part).arg("--version")).is_err());
    if !missing {
        return Ok(());
    }
    match host::find_program("rustup") {
        Some(rustup) => process::run_logged(
            "adding rustfmt and clippy to the toolchain",
            "rustup-components",
            host::command(rustup).args(["component", "add", "rustfmt", "clippy"]),
        ),
        None => apt_get::install_packages(&DEBIAN_PACKAGES, "`check` formats and lints"),
    }
}
