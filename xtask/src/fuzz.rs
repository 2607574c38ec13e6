//! `cargo xtask fuzz`: what a hostile sandbox may say to the egress proxy, in random bytes and
//! splits, and what it may put on the wire, for as many cases as one has time for. The same tests run
//! with few cases in `test`.

use anyhow::Result;

use crate::toolchain::Way;
use crate::{build, host, step, test_tools};

/// Parts of the names of the egress proxy's tests.
const TARGETS: [&str; 4] = [
    "arbitrary_bytes_are_never_a_name",
    "a_mutated_hello_asks_for_what_a_server_would_see",
    "no_server_sees_a_request_that_was_not_judged",
    "the_proxy_judges_like_the_oracle",
];

/// How much.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Cases per target of the egress proxy.
    pub cases: u32,
    /// Raw frames, for which one has to be root.
    pub frames: u64,
}

pub fn run(way: Option<Way>, amount: Amount) -> Result<()> {
    if amount.frames > 0 {
        host::require_root("fuzz --frames")?;
        test_tools::ensure()?;
    }
    build::run(way)?;
    if amount.cases > 0 {
        let mut test = host::cargo("test");
        test.args(["--release", "--package", "policy-agent", "--lib", "--"]).args(TARGETS);
        step::streamed(test.env("PROPTEST_CASES", amount.cases.to_string()))?;
    }
    if amount.frames > 0 {
        let mut test = host::cargo("test");
        test.args(["--release", "--package", "policy-tests", "--test", "hostile"]);
        test.args(["--", "--nocapture"]);
        step::streamed(test.env("POLICY_TEST_FRAMES", amount.frames.to_string()))?;
    }
    Ok(())
}
