//! `cargo xtask test`: set up, build, then every test of the workspace, then a few of them on
//! other kernels.

use anyhow::{Result, bail};

use crate::toolchain::Way;
use crate::tools::{self, Caller};
use crate::{build, host, kernels, qemu, sdks, step};

pub fn run(way: Option<Way>, args: &[String]) -> Result<()> {
    host::require_root("test")?;
    build::development(way, || {
        tools::ensure(Caller::Tests)?;
        qemu::ensure_or_say();
        sdks::ensure_or_say();
        kernels::ensure_guests_or_say();
        Ok(())
    })?;
    let mut test = host::cargo("test");
    // No `--workspace`, so that `-- -p policy-common` selects; the default members are all but
    // policy-ebpf, which has no tests of its own.
    test.args(args);
    if !args.is_empty() {
        return step::become_(&mut test);
    }
    // One failure hides no other.
    let here = step::streamed(test.arg("--no-fail-fast"));
    let elsewhere = kernels::short();
    match (here, elsewhere) {
        (Ok(()), elsewhere) => elsewhere,
        (here, Ok(())) => here,
        (Err(here), Err(elsewhere)) => bail!("{here:#}; and on other kernels: {elsewhere:#}"),
    }
}
