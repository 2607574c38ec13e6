//! A nightly toolchain of rustup, with libcore's source.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::BpfCompiler;
use crate::{host, process};

/// A nightly of 1.97: new enough for the workspace, old enough for aya 0.14, and with the LLVM (22)
/// of stable 1.95.
const NIGHTLY_TOOLCHAIN: &str = "nightly-2026-05-20";

pub(crate) fn manual_instructions() -> String {
    format!("`rustup toolchain install {NIGHTLY_TOOLCHAIN} --component rust-src,clippy`")
}

/// rustup retries for a long time when a server does not respond.
const RUSTUP_DEADLINE: Duration = Duration::from_secs(5 * 60);

pub(crate) fn find_compiler() -> Option<BpfCompiler> {
    let rustup = host::find_program("rustup")?;
    let mut which = host::command(rustup);
    // Only query; this must not install a toolchain.
    which
        .args(["which", "--toolchain", NIGHTLY_TOOLCHAIN, "rustc"])
        .env("RUSTUP_AUTO_INSTALL", "0");
    let rustc = PathBuf::from(process::run_output(&mut which).ok()?.trim());
    let bin = rustc.parent()?.to_owned();
    let source = bin.with_file_name("lib/rustlib/src/rust/library/core/Cargo.toml");
    let complete = source.is_file() && bin.join("cargo-clippy").is_file();
    complete.then_some(BpfCompiler { bin, build_std: true })
}

pub(crate) fn install_toolchain() -> Result<()> {
    let rustup = host::find_program("rustup").context("rustup is not installed")?;
    let what =
        format!("rustup: fetching {NIGHTLY_TOOLCHAIN} with libcore's source (seldom a minute)");
    let mut command = host::command(rustup);
    command.args(["toolchain", "install", NIGHTLY_TOOLCHAIN, "--profile", "minimal"]);
    command.args(["--component", "rust-src", "--component", "clippy", "--no-self-update"]);
    // Without a network, this fails within a minute, so that the next source is tried.
    command.env("RUSTUP_MAX_RETRIES", "1").env("RUSTUP_DOWNLOAD_TIMEOUT", "30");
    command.env("RUST_BACKTRACE", "0");
    process::run_logged_within(RUSTUP_DEADLINE, &what, "rustup", &mut command)
}
