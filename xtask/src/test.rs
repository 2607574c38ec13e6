//! `cargo xtask test`: set up, build, then every test of the workspace, then a few of them on
//! other kernels.

use anyhow::Result;

use crate::toolchain::Way;
use crate::{build, host, kernels, sdks, step, test_tools};

pub fn run(way: Option<Way>, args: &[String]) -> Result<()> {
    host::require_root("test")?;
    test_tools::ensure()?;
    sdks::ensure_or_say();
    kernels::ensure_guests_or_say();
    build::run(way)?;
    let mut test = host::cargo("test");
    // No `--workspace`, so that `-- -p policy-common` selects; the default members are all but
    // policy-ebpf, which has no tests of its own.
    test.arg("--release").args(args);
    if !args.is_empty() {
        return step::become_(&mut test);
    }
    step::streamed(&mut test)?;
    kernels::short()
}
