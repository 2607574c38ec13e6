//! The differential test: random policies × random packets. The kernel's verdict from
//! `BPF_PROG_TEST_RUN` equals the slow and obvious oracle's, and so does the rule that it names.
//!
//! The seed is printed; `POLICY_TEST_SEED` sets it. A run has at least ten thousand pairs.

use policy_agent::dataplane::InboundSource;

use super::differential_run::DifferentialRun;

/// The number of policies per test. There are two tests.
const POLICIES_PER_TEST: usize = 32;
const PACKETS_PER_POLICY: usize = 400;

#[test]
fn kernel_and_oracle_agree_when_anybody_may_connect() {
    DifferentialRun::new(InboundSource::Any, seed_from_environment())
        .run(POLICIES_PER_TEST, PACKETS_PER_POLICY);
}

#[test]
fn kernel_and_oracle_agree_when_only_the_host_may_connect() {
    DifferentialRun::new(InboundSource::Host, seed_from_environment().wrapping_add(1))
        .run(POLICIES_PER_TEST, PACKETS_PER_POLICY);
}

fn seed_from_environment() -> u64 {
    match std::env::var("POLICY_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("POLICY_TEST_SEED={seed} is no number")),
        Err(_) => fastrand::u64(..),
    }
}
