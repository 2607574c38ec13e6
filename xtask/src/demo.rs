//! `cargo xtask demo`: set up, build, then the bin `demo` of `policy-tests`.

use anyhow::Result;

use crate::toolchain::Way;
use crate::tools::{self, Caller};
use crate::{build, host, sdks, step};

pub fn run(way: Option<Way>, keep: bool) -> Result<()> {
    host::require_root("demo")?;
    build::development(way, || {
        tools::ensure(Caller::Demo)?;
        sdks::ensure_for_demo()
    })?;
    let mut demo = host::command(host::target_dir().join("debug/demo"));
    demo.args(keep.then_some("--keep"));
    step::become_(&mut demo)
}
