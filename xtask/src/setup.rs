//! `cargo xtask setup`: the toolchain for the BPF target and the programs which tests call.

use anyhow::Result;

use crate::test_tools;
use crate::toolchain::{self, Way};

pub fn run(way: Option<Way>) -> Result<()> {
    toolchain::ensure(way)?;
    test_tools::ensure()
}
