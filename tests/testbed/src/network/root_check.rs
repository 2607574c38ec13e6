//! The privileges that the tests need. Without them, tests fail with instructions: a test that
//! passes without checking anything is worse than no test.

use anyhow::{Result, ensure};

/// Network namespaces, BPF and raw sockets need root.
pub(crate) fn require_root() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "this needs root, for network namespaces and BPF: run `sudo -E cargo xtask test`, \
         or `cargo test --lib` in policy-agent and policy-common for what needs no privileges"
    );
    Ok(())
}
