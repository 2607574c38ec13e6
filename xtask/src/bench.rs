//! `cargo xtask bench`: set up, build, then the package `policy-bench`.

use anyhow::Result;

use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, process};

pub(crate) fn run(way: Option<ToolchainSource>, args: &[String]) -> Result<()> {
    host::require_root("bench")?;
    system_packages::ensure_tools(ToolCaller::Bench)?;
    build::run(way)?;
    let mut bench = host::cargo("run");
    bench.args(["--release", "--package", "policy-bench", "--"]);
    process::exec(bench.args(args))
}
