//! `cargo xtask kernels`: set up, build, then run tests in virtual machines with Debian's kernels,
//! through the binary `kernels` of `policy-integration`. The kernels are unpacked in
//! `target/kernels/`. Nothing is installed, so the machine's own boot configuration does not
//! change.

mod test_executables;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use test_executables::TestExecutables;

use crate::build::DevelopmentBuild;
use crate::debian_archive::{self, DebianArchive};
use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, process, qemu_install};

/// The test binary with the tests that check most of a kernel in a short time: whether it accepts
/// the programs and maps, and how its hooks see packets. `cargo xtask test` ends with them. Kernels
/// without tcx run them with clsact.
const SMOKE_TEST_BINARY: &str = "enforcement";
/// The modules of these tests.
const SMOKE_TEST_FILTERS: [&str; 2] = ["checksum::", "must_work::"];

/// Test binaries that need programs which the virtual machines lack: package managers, QEMU, the
/// E2B SDKs, CNI plugins.
const EXCLUDED_FROM_VMS: [&str; 5] = ["clients", "containers", "guests", "packages", "sdk"];

/// A kernel series in Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum KernelSeries {
    #[value(name = "5.10")]
    V5_10,
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
}

impl KernelSeries {
    /// The Debian release that contains the series.
    const fn debian_suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye",
            Self::V6_1 | Self::V6_12 => "bookworm",
        }
    }

    /// The package that depends on the newest kernel of the series for virtual machines.
    const fn package_of_newest(self) -> &'static str {
        match self {
            Self::V5_10 | Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }
}

/// Tests and kernels to run. Default: everything that a virtual machine can run, on all kernels.
#[derive(clap::Args)]
pub(crate) struct KernelsArgs {
    /// Run on this kernel only.
    #[arg(long, value_enum)]
    only: Vec<KernelSeries>,
    /// Run this test binary only, as in `cargo test --test`.
    #[arg(long = "test")]
    tests: Vec<String>,
    /// Run only the tests with which `cargo xtask test` ends.
    #[arg(long, conflicts_with_all = ["tests", "arguments"])]
    short: bool,
    /// Passed to the tests: test names or options.
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub(crate) fn run(way: Option<ToolchainSource>, choice: &KernelsArgs) -> Result<()> {
    host::require_root("kernels")?;
    build::build_for_tests(way, DevelopmentBuild::Programs, || {
        system_packages::ensure_tools(ToolCaller::Tests)?;
        qemu_install::ensure_qemu()
    })?;
    if choice.short { run_in_vms(&smoke_tests(&choice.only)) } else { run_in_vms(choice) }
}

/// Runs the short form. Everything must be built already.
pub(crate) fn run_smoke_tests() -> Result<()> {
    run_in_vms(&smoke_tests(&[]))
}

fn smoke_tests(only: &[KernelSeries]) -> KernelsArgs {
    KernelsArgs {
        only: only.to_owned(),
        tests: vec![SMOKE_TEST_BINARY.to_owned()],
        short: false,
        arguments: SMOKE_TEST_FILTERS.map(str::to_owned).into(),
    }
}

fn run_in_vms(choice: &KernelsArgs) -> Result<()> {
    let series = if choice.only.is_empty() { KernelSeries::value_variants() } else { &choice.only };
    let kernels: Vec<PathBuf> = series.iter().copied().map(ensure_kernel).collect::<Result<_>>()?;
    let tests = &choice.tests[..];
    let made = TestExecutables::build(tests)?;
    let mut run = host::command(&made.kernels);
    for kernel in &kernels {
        run.arg("--kernel").arg(kernel);
    }
    for (name, path) in &made.tests {
        if !tests.is_empty() || !EXCLUDED_FROM_VMS.contains(&name.as_str()) {
            run.arg("--test").arg(path);
        }
    }
    process::run_streamed(run.arg("--").args(&choice.arguments))
}

/// For verbs that do more than this. What fails without a kernel reports that itself.
pub(crate) fn try_ensure_guest_kernel() {
    if let Err(error) = ensure_guest_kernel() {
        process::report(&format!("tests with virtual machines will fail: {error:#}"));
    }
}

/// Makes `target/kernels/guest` a link to the kernel that guests boot.
pub(crate) fn ensure_guest_kernel() -> Result<()> {
    let guest = kernels_directory().join("guest");
    if guest.join("boot").is_dir() {
        return Ok(());
    }
    let unpacked = ensure_kernel(KernelSeries::V6_1)?;
    let _dangling = fs::remove_file(&guest);
    symlink(&unpacked, &guest).with_context(|| format!("linking {}", guest.display()))
}

/// Unpacks the newest kernel of a series.
fn ensure_kernel(series: KernelSeries) -> Result<PathBuf> {
    let archive = DebianArchive::open(&kernels_directory().join("apt"), series.debian_suite())?;
    let newest = || {
        unpack_package(
            &archive,
            &archive.find_dependency(series.package_of_newest(), "linux-image-")?,
        )
    };
    // Outdated lists may name versions that the archive no longer has.
    newest().or_else(|_| archive.fetch_lists().and_then(|()| newest()))
}

/// Unpacks a package, completely or not at all.
fn unpack_package(archive: &DebianArchive, package: &str) -> Result<PathBuf> {
    let to = kernels_directory().join(package);
    if to.is_dir() {
        return Ok(to);
    }
    let half = kernels_directory().join(format!("{package}.part"));
    let _left = fs::remove_dir_all(&half);
    let contents = half.join("contents");
    fs::create_dir_all(&half).with_context(|| format!("creating {}", half.display()))?;
    archive.download(package, &half)?;
    debian_archive::extract_package(&downloaded_package(&half)?, &contents)?;
    fs::rename(&contents, &to).with_context(|| format!("moving to {}", to.display()))?;
    fs::remove_dir_all(&half)?;
    Ok(to)
}

fn downloaded_package(directory: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(directory)?.flatten().map(|entry| entry.path());
    let package = files.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let Some(package) = package else {
        bail!("apt-get left no package in {}", directory.display());
    };
    Ok(package)
}

fn kernels_directory() -> PathBuf {
    host::target_dir().join("kernels")
}
