//! `cargo xtask fuzz`: what a hostile sandbox may say to the egress proxy, in random bytes and
//! splits, for as many cases as one has time for. The same tests run with few cases in `test`.

use anyhow::Result;

use crate::toolchain::Way;
use crate::{build, host, step};

/// Parts of the names of the tests.
const TARGETS: [&str; 4] = [
    "arbitrary_bytes_are_never_a_name",
    "a_mutated_hello_asks_for_what_a_server_would_see",
    "no_server_sees_a_request_that_was_not_judged",
    "the_proxy_judges_like_the_oracle",
];

pub fn run(way: Option<Way>, cases: u32) -> Result<()> {
    build::run(way)?;
    let mut test = host::cargo("test");
    test.args(["--release", "--package", "policy-agent", "--lib", "--"]).args(TARGETS);
    step::become_(test.env("PROPTEST_CASES", cases.to_string()))
}
