//! What others wrote and we build in: its licences, versions, sources and known holes, held by
//! cargo-deny to what `deny.toml` allows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::{host, step};

const VERSION: &str = "0.20.2";
/// On a small machine that has other things to do.
const INSTALLED_WITHIN: Duration = Duration::from_secs(40 * 60);
/// It is some megabytes; who has no network may wait for a name.
const FETCHED_WITHIN: Duration = Duration::from_secs(2 * 60);

/// Checks all of them; known holes only where their list can be had, and says so otherwise.
pub fn check() -> Result<()> {
    let deny = ensure()?;
    // A warning is a line of `deny.toml` which nothing needs any more.
    let checks = ["check", "--deny", "warnings", "licenses", "bans", "sources"];
    step::streamed(run(&deny).args(checks))
        .context("deny.toml does not allow what is built in: take it out, or allow it there")?;

    let fetch = "fetching the RustSec advisories";
    let fetched =
        step::logged_within(FETCHED_WITHIN, fetch, "rustsec", run(&deny).args(["fetch", "db"]));
    if fetched.is_err() {
        step::say(
            "ADVISORIES WERE NOT CHECKED: the RustSec database cannot be had from here \
             (target/log/rustsec.log); all else was",
        );
        return Ok(());
    }
    step::streamed(run(&deny).args(["check", "--deny", "warnings", "advisories"]))
        .context("a crate that is built in has a known hole: update it")
}

fn run(deny: &Path) -> Command {
    let mut command = host::command(deny);
    command.args(["--workspace", "--locked"]);
    command
}

/// The one on the path if it is of this version, else ours, which is compiled first if need be.
fn ensure() -> Result<PathBuf> {
    let tools = host::cache_dir().join(format!("cargo-deny-{VERSION}"));
    let own = tools.join("bin/cargo-deny");
    let found = host::find("cargo-deny").into_iter().chain([own.clone()]).find(|it| is_right(it));
    if let Some(found) = found {
        return Ok(found);
    }
    let what = format!("compiling cargo-deny {VERSION} (once, some minutes)");
    let mut install = host::cargo("install");
    install
        // Without optimisation: it compiles in a third of the time and is quick enough.
        .args(["cargo-deny", "--locked", "--force", "--debug", "--root"])
        .arg(&tools)
        .arg(format!("--version={VERSION}"))
        .env("CARGO_PROFILE_DEV_DEBUG", "false")
        // A temporary directory instead.
        .env_remove("CARGO_TARGET_DIR");
    step::logged_within(INSTALLED_WITHIN, &what, "cargo-deny", &mut install)?;
    if !is_right(&own) {
        bail!("{} was compiled, but does not run: try it with --version", own.display());
    }
    Ok(own)
}

fn is_right(deny: &Path) -> bool {
    let version = step::output(host::command(deny).arg("--version"));
    version.is_ok_and(|text| text.trim() == format!("cargo-deny {VERSION}"))
}
