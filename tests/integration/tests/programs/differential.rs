//! The strongest proof: random policies × random packets, the kernel's verdict by
//! `BPF_PROG_TEST_RUN` equal to the slow and obvious oracle's, and the rule it names, too.
//!
//! The seed is printed; `POLICY_TEST_SEED` sets it. At least ten thousand pairs per run.

use policy_agent::dataplane::InboundSource;

use super::differential_run::DifferentialRun;

/// Policies per test and packets per policy; there are two tests.
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
