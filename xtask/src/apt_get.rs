//! Installs Debian packages without asking questions and without removing other packages.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{host, process};

/// Installs `packages`. `why` completes the sentence shown to a user who must install them by hand.
pub(crate) fn install_packages(packages: &[&str], why: &str) -> Result<()> {
    let list = packages.join(" ");
    let Some(apt_get) = host::find_program("apt-get") else {
        bail!("{why}: install what your distribution calls {list} (there is no apt-get here)");
    };
    if !host::is_root() {
        bail!("{why}: run `sudo apt-get install {list}`, or this command as root");
    }
    let mut updated = false;
    if packages.iter().any(|package| candidate_version(package).is_none()) {
        update_lists()?;
        updated = true;
    }
    let what = format!("installing {list}: {why}");
    let log = format!("apt-install-{}", packages.first().context("no packages")?);
    let install = || {
        let mut command = noninteractive(&apt_get);
        // `--no-remove`: for example, rustc-web replaces rustc. The user decides about that.
        command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]);
        process::run_logged(&what, &log, command.args(packages))
    };
    match install() {
        // Outdated lists may name versions that the archive no longer has.
        Err(_) if !updated => {
            update_lists()?;
            install()
        }
        done => done,
    }
    .with_context(|| format!("apt-get cannot install {list}; {why}"))
}

/// Fetches the package lists.
pub(crate) fn update_lists() -> Result<()> {
    process::run_logged(
        "fetching Debian's package lists",
        "apt-update",
        noninteractive("apt-get").arg("update"),
    )
}

/// The version apt would install, if it knows the package.
pub(crate) fn candidate_version(package: &str) -> Option<String> {
    let policy = process::run_output(
        host::command("apt-cache").args(["policy", package]).env("LC_ALL", "C"),
    );
    let policy = policy.ok()?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

fn noninteractive(apt_get: impl AsRef<OsStr>) -> Command {
    let mut command = host::command(apt_get);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    // Another apt process, such as unattended upgrades on a fresh machine, may hold the lock for a
    // while.
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}
