//! `cargo xtask check`: links between documents, formatting, lints and documentation, for the host and
//! the BPF target, and what is built in of others.

use anyhow::{Context as _, Result};

use crate::toolchain::{self, Way};
use crate::{apt, build, host, links, step, supply};

/// What Debian calls rustfmt and clippy.
const DEBIAN: [&str; 2] = ["rustfmt-web", "rust-web-clippy"];

pub fn run(way: Option<Way>) -> Result<()> {
    // The quickest first; nothing has to be built for it.
    links::check()?;
    host_components()?;
    step::streamed(host::cargo("fmt").args(["--all", "--check"]))
        .context("formatting differs: run `cargo fmt --all`")?;

    let toolchain = toolchain::ensure(way)?;
    step::streamed(toolchain.clippy()?.args(["--bins", "--", "-D", "warnings"]))?;
    // The agent's build script embeds the objects, so not even clippy can do without them.
    build::objects(&toolchain)?;

    step::streamed(host::cargo("clippy").args(["--all-targets", "--", "-D", "warnings"]))?;
    step::streamed(host::cargo("doc").arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings"))?;
    // Last, so that what it could not check is not overlooked.
    supply::check()
}

fn host_components() -> Result<()> {
    let missing = ["fmt", "clippy"]
        .iter()
        .any(|part| step::output(host::cargo(part).arg("--version")).is_err());
    if !missing {
        return Ok(());
    }
    match host::find("rustup") {
        Some(rustup) => step::logged(
            "adding rustfmt and clippy to the toolchain",
            "rustup-components",
            host::command(rustup).args(["component", "add", "rustfmt", "clippy"]),
        ),
        None => apt::install(&DEBIAN, "`check` formats and lints"),
    }
}
