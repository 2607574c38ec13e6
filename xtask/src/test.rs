//! `cargo xtask test`: set up, build, then run all tests of the workspace, then a few of them on
//! other kernels.

use anyhow::{Result, bail};

use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, kernel_tests, process, qemu_install, sdk_install};

pub(crate) fn run(way: Option<ToolchainSource>, args: &[String]) -> Result<()> {
    host::require_root("test")?;
    build::build_for_tests(way, || {
        system_packages::ensure_tools(ToolCaller::Tests)?;
        qemu_install::try_ensure_qemu();
        sdk_install::try_ensure_sdks();
        kernel_tests::try_ensure_guest_kernel();
        Ok(())
    })?;
    let mut test = host::cargo("test");
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
