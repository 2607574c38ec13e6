//! `cargo xtask fuzz`: run the property tests with many cases. They cover input from a hostile
//! sandbox to the egress proxy, input from any client to the gateway and the API, files, and raw
//! frames. `cargo xtask test` runs the same tests with few cases.

use anyhow::Result;

use crate::system_packages::{self, ToolCaller};
use crate::toolchain::ToolchainSource;
use crate::{build, host, process};

/// Filters for the tests to run: modules of parser tests, and tests of the egress proxy.
const FUZZ_TARGETS: [&str; 5] = [
    "::fuzz::",
    "arbitrary_bytes_are_never_a_name",
    "a_mutated_hello_asks_for_what_a_server_would_see",
    "no_server_sees_a_request_that_was_not_judged",
    "the_proxy_judges_like_the_oracle",
];

/// How many cases to run.
#[derive(Clone, Copy)]
pub(crate) struct FuzzAmount {
    /// Cases per target in the agent.
    pub(crate) cases: u32,
    /// Raw frames. They need root.
    pub(crate) frames: u64,
}

pub(crate) fn run(way: Option<ToolchainSource>, amount: FuzzAmount) -> Result<()> {
    if amount.frames > 0 {
        host::require_root("fuzz --frames")?;
        system_packages::ensure_tools(ToolCaller::Tests)?;
    }
    build::run(way)?;
    if amount.cases > 0 {
        let mut test = host::cargo("test");
        test.args(["--release", "--package", "policy-agent", "--lib", "--"]).args(FUZZ_TARGETS);
        process::run_streamed(test.env("PROPTEST_CASES", amount.cases.to_string()))?;
    }
    if amount.frames > 0 {
        let mut test = host::cargo("test");
        test.args(["--release", "--package", "policy-integration", "--test", "hostile"]);
        test.args(["--", "--nocapture"]);
        process::run_streamed(test.env("POLICY_TEST_FRAMES", amount.frames.to_string()))?;
    }
    Ok(())
}
