//! Tarballs that do not depend on the machine or the time.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::PackageInput;
use crate::{host, process};

/// Makes the tarball of the files below `root`, and returns its path.
pub(super) fn make_tarball(input: &PackageInput, root: &Path) -> Result<PathBuf> {
    let name = format!("policy-agent-{}-{}-linux.tar.gz", input.version, std::env::consts::ARCH);
    let path = input.output.join(name);
    let directory = format!("policy-agent-{}", input.version);
    let mut tar = reproducible_tar(input, root);
    tar.arg(format!("--transform=s,^\\.,{directory},"));
    process::run_output(tar.arg("-czf").arg(&path).arg("."))?;
    Ok(path)
}

/// A tar of a directory, in which equal files make equal archives. The archive's name and its members
/// are missing.
pub(super) fn reproducible_tar(input: &PackageInput, directory: &Path) -> Command {
    let mut tar = host::command("tar");
    tar.arg("-C").arg(directory);
    tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    tar.arg(format!("--mtime=@{}", input.timestamp)).env("GZIP", "-n");
    tar
}
