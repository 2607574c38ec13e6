//! `cargo xtask bench`: set up, build, then the bin `bench` of `policy-tests`.

use anyhow::Result;

use crate::toolchain::Way;
use crate::tools::{self, Caller};
use crate::{build, host, step};

pub fn run(way: Option<Way>, args: &[String]) -> Result<()> {
    host::require_root("bench")?;
    tools::ensure(Caller::Bench)?;
    build::run(way)?;
    let mut bench = host::cargo("run");
    bench.args(["--release", "--package", "policy-tests", "--bin", "bench", "--"]);
    step::become_(bench.args(args))
}
