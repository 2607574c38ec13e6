//! QEMU, for tests with virtual machines: the one on the path, else Debian's, unpacked in
//! `target/qemu/` as the kernels are. Debian's cannot always be installed: beside a `qemu-utils` of
//! backports, for example, apt would have to remove that.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{apt, archive, host, step};

const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";
/// apt's record of what is installed.
const INSTALLED: &str = "/var/lib/dpkg/status";

/// For verbs that do more than this: what fails without QEMU says so itself.
pub fn ensure_or_say() {
    if let Err(error) = ensure() {
        step::say(&format!("tests with virtual machines will fail, without QEMU: {error:#}"));
    }
}

/// Leaves `target/qemu/qemu-system-x86_64`, unless there is one on the path.
pub fn ensure() -> Result<()> {
    let ours = directory().join(PROGRAM);
    if host::find(PROGRAM).is_some() || runs(&ours) {
        return Ok(());
    }
    let contents = directory().join("contents");
    let _left = fs::remove_dir_all(&contents);
    for package in download()? {
        archive::extract(&package, &contents)?;
    }
    fs::write(&ours, launcher(&contents))?;
    fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
    if !runs(&ours) {
        bail!("{} was unpacked, but does not run: try it with --version", ours.display());
    }
    Ok(())
}

fn runs(program: &Path) -> bool {
    program.is_file() && step::output(host::command(program).arg("--version")).is_ok()
}

/// QEMU and what it needs of packages that are not installed, as apt would choose them if there were
/// no part of QEMU on this machine.
fn download() -> Result<Vec<PathBuf>> {
    let status = directory().join("status");
    let packages = directory().join("packages");
    fs::create_dir_all(packages.join("partial"))?;
    let installed =
        fs::read_to_string(INSTALLED).with_context(|| format!("reading {INSTALLED}"))?;
    let others = installed.split_inclusive("\n\n").filter(|it| !it.starts_with("Package: qemu-"));
    fs::write(&status, others.collect::<String>())?;
    if apt::candidate(PACKAGE).is_none() {
        apt::update()?;
    }
    let fetch = || {
        let mut get = host::command("apt-get");
        get.args(["install", "--yes", "--download-only", "--no-install-recommends", PACKAGE]);
        get.arg("-o").arg(format!("Dir::State::status={}", status.display()));
        get.arg("-o").arg(format!("Dir::Cache::archives={}", packages.display()));
        // apt's own user may not read `target/`; nothing is locked, since nothing is installed.
        get.args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
        step::logged("downloading QEMU (17 MB)", "qemu-download", &mut get)
    };
    // The lists may name versions which the archive has dropped since.
    fetch().or_else(|_| apt::update().and_then(|()| fetch()))?;
    let files = fs::read_dir(&packages)?.flatten().map(|entry| entry.path());
    Ok(files.filter(|path| path.extension().is_some_and(|it| it == "deb")).collect())
}

/// A program that finds its libraries, modules and firmware where they were unpacked.
fn launcher(contents: &Path) -> String {
    let root = contents.display();
    format!(
        "#!/bin/sh\n\
         libraries='{root}/usr/lib/x86_64-linux-gnu'\n\
         export LD_LIBRARY_PATH=\"$libraries:{root}/lib/x86_64-linux-gnu\"\n\
         export QEMU_MODULE_DIR=\"$libraries/qemu\"\n\
         exec '{root}/usr/bin/{PROGRAM}' -L '{root}/usr/share/qemu' -L '{root}/usr/share/seabios' \"$@\"\n"
    )
}

fn directory() -> PathBuf {
    host::target_dir().join("qemu")
}
