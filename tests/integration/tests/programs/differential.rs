//! The differential test: random policies × random packets. The kernel's verdict from
//! `BPF_PROG_TEST_RUN` equals the slow and obvious oracle's, and so does the rule that it names.
//!
//! The seed is printed; `POLICY_TEST_SEED` sets it. A run has at least ten thousand pairs.

use policy_agent::dataplane::{InboundSource, TableKind};

use super::differential_run::DifferentialRun;

/// The number of policies per test. There are three tests.
const POLICIES_PER_TEST: usize = 32;
const PACKETS_PER_POLICY: usize = 400;

#[test]
fn kernel_and_oracle_agree_when_anybody_may_connect() {
    DifferentialRun::new(InboundSource::Any, TableKind::Flat, seed_from_environment())
        .run(POLICIES_PER_TEST, PACKETS_PER_POLICY);
}

#[test]
fn kernel_and_oracle_agree_when_only_the_host_may_connect() {
    let seed = seed_from_environment().wrapping_add(1);
    DifferentialRun::new(InboundSource::Host, TableKind::Flat, seed)
        .run(POLICIES_PER_TEST, PACKETS_PER_POLICY);
}

#[test]
fn kernel_and_oracle_agree_when_policies_are_in_lpm_tries() {
    let seed = seed_from_environment().wrapping_add(2);
    DifferentialRun::new(InboundSource::Any, TableKind::Lpm, seed)
        .run(POLICIES_PER_TEST, PACKETS_PER_POLICY);
}

fn seed_from_environment() -> u64 {
    match std::env::var("POLICY_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("POLICY_TEST_SEED={seed} is no number")),
        Err(_) => fastrand::u64(..),
    }
}
