//! `cargo xtask setup`: the toolchain for the BPF target, the programs which the demo, the tests and
//! the benchmark call, QEMU, the E2B SDKs, and a kernel for guests.

use anyhow::Result;

use crate::toolchain::{self, Way};
use crate::tools::{self, Caller};
use crate::{kernels, qemu, sdks};

pub fn run(way: Option<Way>) -> Result<()> {
    toolchain::ensure(way)?;
    for caller in [Caller::Demo, Caller::Tests, Caller::Bench] {
        tools::ensure(caller)?;
    }
    qemu::ensure()?;
    sdks::ensure()?;
    kernels::ensure_guests()
}
