//! A nightly toolchain of rustup, with libcore's source.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Compiler;
use crate::{host, step};

/// A nightly of 1.97: new enough for the workspace, old enough for aya 0.14, and with the LLVM (22)
/// of stable 1.95.
const TOOLCHAIN: &str = "nightly-2026-05-20";

pub fn by_hand() -> String {
    format!("`rustup toolchain install {TOOLCHAIN} --component rust-src,clippy`")
}

/// rustup repeats and waits for long when nobody answers.
const DEADLINE: Duration = Duration::from_secs(5 * 60);

pub fn find() -> Option<Compiler> {
    let rustup = host::find("rustup")?;
    let mut which = host::command(rustup);
    // Only ask; this must not install.
    which.args(["which", "--toolchain", TOOLCHAIN, "rustc"]).env("RUSTUP_AUTO_INSTALL", "0");
    let rustc = PathBuf::from(step::output(&mut which).ok()?.trim());
    let bin = rustc.parent()?.to_owned();
    let source = bin.with_file_name("lib/rustlib/src/rust/library/core/Cargo.toml");
    let complete = source.is_file() && bin.join("cargo-clippy").is_file();
    complete.then_some(Compiler { bin, build_std: true })
}

pub fn install() -> Result<()> {
    let rustup = host::find("rustup").context("rustup is not installed")?;
    let what = format!("rustup: fetching {TOOLCHAIN} with libcore's source (seldom a minute)");
    let mut command = host::command(rustup);
    command.args(["toolchain", "install", TOOLCHAIN, "--profile", "minimal"]);
    command.args(["--component", "rust-src", "--component", "clippy", "--no-self-update"]);
    // Without a network this fails within a minute, so that the next way gets its turn.
    command.env("RUSTUP_MAX_RETRIES", "1").env("RUSTUP_DOWNLOAD_TIMEOUT", "30");
    command.env("RUST_BACKTRACE", "0");
    step::logged_within(DEADLINE, &what, "rustup", &mut command)
}
