//! `cargo xtask test`: set up, build, then every test of the workspace.

use anyhow::Result;

use crate::toolchain::Way;
use crate::{build, host, kernels, sdks, step, test_tools};

pub fn run(way: Option<Way>, args: &[String]) -> Result<()> {
    host::require_root("test")?;
    test_tools::ensure()?;
    sdks::ensure_or_say();
    kernels::ensure_guests_or_say();
    build::run(way)?;
    // No `--workspace`, so that `-- -p policy-common` selects; the default members are all but
    // policy-ebpf, which has no tests of its own.
    step::become_(host::cargo("test").arg("--release").args(args))
}
