//! Audits the dependencies with cargo-deny: licences, versions, sources and known vulnerabilities,
//! against the rules in `deny.toml`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{host, process};

const CARGO_DENY_VERSION: &str = "0.20.2";
/// Long enough for a small, busy machine.
const INSTALL_DEADLINE: Duration = Duration::from_secs(40 * 60);
/// The download has a few megabytes. Without a network, name resolution may take long to fail.
const FETCH_DEADLINE: Duration = Duration::from_secs(2 * 60);

/// Checks all dependencies. Known vulnerabilities are checked only if their list is available;
/// otherwise this prints a warning.
pub(crate) fn check_dependencies() -> Result<()> {
    let deny = ensure_cargo_deny()?;
    // A warning means that a line of `deny.toml` is no longer needed.
    let checks = ["check", "--deny", "warnings", "licenses", "bans", "sources"];
    process::run_streamed(deny_command(&deny).args(checks))
        .context("deny.toml does not allow what is built in: take it out, or allow it there")?;

    let fetch = "fetching the RustSec advisories";
    let fetched = process::run_logged_within(
        FETCH_DEADLINE,
        fetch,
        "rustsec",
        deny_command(&deny).args(["fetch", "db"]),
    );
    if fetched.is_err() {
        process::report(
            "ADVISORIES WERE NOT CHECKED: the RustSec database cannot be had from here \
             (target/log/rustsec.log); all else was",
        );
        return Ok(());
    }
    process::run_streamed(deny_command(&deny).args(["check", "--deny", "warnings", "advisories"]))
        .context("a crate that is built in has a known hole: update it")
}

fn deny_command(deny: &Path) -> Command {
    let mut command = host::command(deny);
    command.args(["--workspace", "--locked"]);
    command
}

/// The cargo-deny on the path if it has the pinned version, otherwise our own, which is compiled if
/// necessary.
fn ensure_cargo_deny() -> Result<PathBuf> {
    let tools = host::cache_dir().join(format!("cargo-deny-{CARGO_DENY_VERSION}"));
    let own = tools.join("bin/cargo-deny");
    let found = host::find_program("cargo-deny")
        .into_iter()
        .chain([own.clone()])
        .find(|it| has_pinned_version(it));
    if let Some(found) = found {
        return Ok(found);
    }
    let what = format!("compiling cargo-deny {CARGO_DENY_VERSION} (once, some minutes)");
    let mut install = host::cargo("install");
    install
        // Without optimisation it compiles in a third of the time and is fast enough.
        .args(["cargo-deny", "--locked", "--force", "--debug", "--root"])
        .arg(&tools)
        .arg(format!("--version={CARGO_DENY_VERSION}"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        // Cargo then uses a temporary directory.
        .env_remove("CARGO_TARGET_DIR");
    process::run_logged_within(INSTALL_DEADLINE, &what, "cargo-deny", &mut install)?;
    if !has_pinned_version(&own) {
        bail!("{} was compiled, but does not run: try it with --version", own.display());
    }
    Ok(own)
}

fn has_pinned_version(deny: &Path) -> bool {
    let version = process::run_output(host::command(deny).arg("--version"));
    version.is_ok_and(|text| text.trim() == format!("cargo-deny {CARGO_DENY_VERSION}"))
}
