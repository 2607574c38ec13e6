//! `cargo xtask test`: set up, build, then run all tests of the workspace, then a few of them on
//! other kernels.

use std::env;

use anyhow::{Result, bail};

use crate::build::DevelopmentBuild;
use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, kernel_tests, process, qemu_install, sdk_install};

/// The number of tests that run at once.
const TEST_THREADS: &str = "RUST_TEST_THREADS";
/// Tests mostly wait: for processes, for the verifier, and for grace periods.
const THREADS: &str = "4";

pub(crate) fn run(way: Option<ToolchainSource>, args: &[String]) -> Result<()> {
    host::require_root("test")?;
    // With arguments, cargo builds only what they select.
    let what = match args {
        [] => DevelopmentBuild::ProgramsAndTests,
        _ => DevelopmentBuild::Programs,
    };
    build::build_for_tests(way, what, || {
        system_packages::ensure_tools(ToolCaller::Tests)?;
        qemu_install::try_ensure_qemu();
        sdk_install::try_ensure_sdks();
        kernel_tests::try_ensure_guest_kernel();
        Ok(())
    })?;
    let mut test = host::cargo("test");
    if env::var_os(TEST_THREADS).is_none() {
        test.env(TEST_THREADS, THREADS);
    }
    // No `--workspace`, so that `-- -p policy-common` can select a package. All packages with tests
    // of their own are default members.
    test.args(args);
    if !args.is_empty() {
        return process::exec(&mut test);
    }
    // One failure hides no other.
    let here = process::run_streamed(test.arg("--no-fail-fast"));
    let elsewhere = kernel_tests::run_smoke_tests();
    match (here, elsewhere) {
        (Ok(()), elsewhere) => elsewhere,
        (here, Ok(())) => here,
        (Err(here), Err(elsewhere)) => bail!("{here:#}; and on other kernels: {elsewhere:#}"),
    }
}
