//! `cargo xtask setup`: install the toolchain for the BPF target, the programs that the demo, the
//! tests and the benchmark call, QEMU, the E2B SDKs, and a kernel for guests.

use anyhow::Result;

use crate::system_packages::{self, ToolCaller};
use crate::toolchain::{self, ToolchainSource};
use crate::{kernel_tests, qemu_install, sdk_install};

pub(crate) fn run(way: Option<ToolchainSource>) -> Result<()> {
    toolchain::ensure_toolchain(way)?;
    for caller in [ToolCaller::Demo, ToolCaller::Tests, ToolCaller::Bench] {
        system_packages::ensure_tools(caller)?;
    }
    qemu_install::ensure_qemu()?;
    sdk_install::ensure_sdks()?;
    kernel_tests::ensure_guest_kernel()
}
