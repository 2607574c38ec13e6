//! QEMU for tests with virtual machines: the one on the path, or Debian's, unpacked into
//! `target/qemu/` like the kernels. Installing Debian's is not always possible: for example, apt
//! would have to remove a `qemu-utils` from backports.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::{apt_get, debian_archive, host, process};

const QEMU_PROGRAM: &str = "qemu-system-x86_64";
const QEMU_PACKAGE: &str = "qemu-system-x86";
/// The file in which dpkg records the installed packages.
const DPKG_STATUS: &str = "/var/lib/dpkg/status";

/// For verbs that do more than this. What fails without QEMU reports that itself.
pub(crate) fn try_ensure_qemu() {
    if let Err(error) = ensure_qemu() {
        process::report(&format!("tests with virtual machines will fail, without QEMU: {error:#}"));
    }
}

/// Creates `target/qemu/qemu-system-x86_64`, unless there is one on the path.
pub(crate) fn ensure_qemu() -> Result<()> {
    let ours = qemu_directory().join(QEMU_PROGRAM);
    if host::find_program(QEMU_PROGRAM).is_some() || is_runnable(&ours) {
        return Ok(());
    }
    let contents = qemu_directory().join("contents");
    let _left = fs::remove_dir_all(&contents);
    for package in download_packages()? {
        debian_archive::extract_package(&package, &contents)?;
    }
    fs::write(&ours, launcher_script(&contents))?;
    fs::set_permissions(&ours, Permissions::from_mode(0o755))?;
    if !is_runnable(&ours) {
        bail!("{} was unpacked, but does not run: try it with --version", ours.display());
    }
    Ok(())
}

fn is_runnable(program: &Path) -> bool {
    program.is_file() && process::run_output(host::command(program).arg("--version")).is_ok()
}

/// Downloads QEMU and its dependencies that are not installed, as apt selects them on a machine
/// without any part of QEMU.
fn download_packages() -> Result<Vec<PathBuf>> {
    let status = qemu_directory().join("status");
    let packages = qemu_directory().join("packages");
    fs::create_dir_all(packages.join("partial"))?;
    let installed =
        fs::read_to_string(DPKG_STATUS).with_context(|| format!("reading {DPKG_STATUS}"))?;
    let others = installed.split_inclusive("\n\n").filter(|it| !it.starts_with("Package: qemu-"));
    fs::write(&status, others.collect::<String>())?;
    if apt_get::candidate_version(QEMU_PACKAGE).is_none() {
        apt_get::update_lists()?;
    }
    let fetch = || {
        let mut get = host::command("apt-get");
        get.args(["install", "--yes", "--download-only", "--no-install-recommends", QEMU_PACKAGE]);
        get.arg("-o").arg(format!("Dir::State::status={}", status.display()));
        get.arg("-o").arg(format!("Dir::Cache::archives={}", packages.display()));
        // The user `_apt` may be unable to read `target/`. Nothing is installed, so no lock is
        // needed.
        get.args(["-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1"]);
        process::run_logged("downloading QEMU (17 MB)", "qemu-download", &mut get)
    };
    // Outdated lists may name versions that the archive no longer has.
    fetch().or_else(|_| apt_get::update_lists().and_then(|()| fetch()))?;
    let files = fs::read_dir(&packages)?.flatten().map(|entry| entry.path());
    Ok(files.filter(|path| path.extension().is_some_and(|it| it == "deb")).collect())
}

/// A script that starts QEMU with its unpacked libraries, modules and firmware.
fn launcher_script(contents: &Path) -> String {
    let root = contents.display();
    format!(
        "#!/bin/sh\n\
         libraries='{root}/usr/lib/x86_64-linux-gnu'\n\
         export LD_LIBRARY_PATH=\"$libraries:{root}/lib/x86_64-linux-gnu\"\n\
         export QEMU_MODULE_DIR=\"$libraries/qemu\"\n\
         exec '{root}/usr/bin/{QEMU_PROGRAM}' -L '{root}/usr/share/qemu' -L '{root}/usr/share/seabios' \"$@\"\n"
    )
}

fn qemu_directory() -> PathBuf {
    host::target_dir().join("qemu")
}
