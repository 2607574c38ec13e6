//! `cargo xtask demo`: set up, build, then the bin `demo` of `policy-tests`.

use anyhow::Result;

use crate::toolchain::Way;
use crate::{build, host, sdks, step, test_tools};

pub fn run(way: Option<Way>, keep: bool) -> Result<()> {
    host::require_root("demo")?;
    test_tools::ensure()?;
    sdks::ensure_or_say();
    build::run(way)?;
    let mut demo = host::cargo("run");
    demo.args(["--release", "--package", "policy-tests", "--bin", "demo", "--"]);
    demo.args(keep.then_some("--keep"));
    step::become_(&mut demo)
}
