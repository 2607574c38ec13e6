//! `cargo xtask setup`: the toolchain for the BPF target, the programs which tests call, and the
//! E2B SDKs.

use anyhow::Result;

use crate::toolchain::{self, Way};
use crate::{sdks, test_tools};

pub fn run(way: Option<Way>) -> Result<()> {
    toolchain::ensure(way)?;
    test_tools::ensure()?;
    sdks::ensure()
}
