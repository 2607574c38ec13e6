//! Debian's kernels for virtual machines, unpacked in `target/kernels/`: nothing is installed, so that
//! this machine boots what it did before.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::{apt, host, step};

/// Depends on the newest kernel for virtual machines.
const NEWEST: &str = "linux-image-cloud-amd64";

/// For verbs that do more than this: what fails without a kernel says so itself.
pub fn ensure_guests_or_say() {
    if let Err(error) = ensure_guests() {
        step::say(&format!("tests with virtual machines will fail: {error:#}"));
    }
}

/// Makes `target/kernels/guest` a link to the kernel that guests boot.
pub fn ensure_guests() -> Result<()> {
    let guest = directory().join("guest");
    if guest.join("boot").is_dir() {
        return Ok(());
    }
    if apt::candidate(NEWEST).is_none() {
        apt::update()?;
    }
    let unpacked = unpack(&dependency(NEWEST)?)?;
    let _dangling = fs::remove_file(&guest);
    symlink(&unpacked, &guest).with_context(|| format!("linking {}", guest.display()))
}

/// The package that a meta-package stands for.
fn dependency(meta: &str) -> Result<String> {
    let listed = step::output(host::command("apt-cache").args(["depends", meta]))?;
    let mut depends = listed.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let image = depends.find(|package| package.starts_with("linux-image-"));
    image.map(str::to_owned).with_context(|| format!("{meta} depends on no kernel: {listed}"))
}

/// Unpacks a package: all of it or none.
fn unpack(package: &str) -> Result<PathBuf> {
    let to = directory().join(package);
    if to.is_dir() {
        return Ok(to);
    }
    let half = directory().join(format!("{package}.part"));
    let _left = fs::remove_dir_all(&half);
    let contents = half.join("contents");
    fs::create_dir_all(&contents).with_context(|| format!("creating {}", contents.display()))?;
    let mut download = host::command("apt-get");
    download.current_dir(&half).args(["download", package]);
    step::logged(&format!("downloading {package}"), "kernel-download", &mut download)?;
    let files = fs::read_dir(&half)?.flatten().map(|entry| entry.path());
    let Some(archive) =
        files.into_iter().find(|path| path.extension().is_some_and(|it| it == "deb"))
    else {
        bail!("apt-get left no package in {}", half.display());
    };
    let mut extract = host::command("dpkg-deb");
    extract.arg("--extract").arg(archive).arg(&contents);
    step::logged(&format!("unpacking {package}"), "kernel-unpack", &mut extract)?;
    fs::rename(&contents, &to).with_context(|| format!("moving to {}", to.display()))?;
    fs::remove_dir_all(&half)?;
    Ok(to)
}

fn directory() -> PathBuf {
    host::target_dir().join("kernels")
}
