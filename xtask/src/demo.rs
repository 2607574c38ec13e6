//! `cargo xtask demo`: set up, build, then the package `policy-demo`.

use anyhow::Result;

use crate::build::DevelopmentBuild;
use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, process, sdk_install};

pub(crate) fn run(way: Option<ToolchainSource>, keep: bool) -> Result<()> {
    host::require_root("demo")?;
    build::build_for_tests(way, DevelopmentBuild::Programs, || {
        system_packages::ensure_tools(ToolCaller::Demo)?;
        sdk_install::ensure_demo_sdk()
    })?;
    let mut demo = host::command(host::target_dir().join("debug/demo"));
    demo.args(keep.then_some("--keep"));
    process::exec(&mut demo)
}
