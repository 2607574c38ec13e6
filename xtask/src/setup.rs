//! `cargo xtask setup`: the toolchain for the BPF target, the programs which tests call, the
//! E2B SDKs, and a kernel for guests.

use anyhow::Result;

use crate::toolchain::{self, Way};
use crate::{kernels, sdks, test_tools};

pub fn run(way: Option<Way>) -> Result<()> {
    toolchain::ensure(way)?;
    test_tools::ensure()?;
    sdks::ensure()?;
    kernels::ensure_guests()
}
