//! The strongest proof: random policies × random packets, the kernel's verdict by
//! `BPF_PROG_TEST_RUN` equal to the slow and obvious oracle's, and the rule it names, too.
//!
//! The seed is printed; `POLICY_TEST_SEED` sets it. At least ten thousand pairs per run.

#![expect(clippy::print_stdout, reason = "the seed has to be known to run a failure again")]

mod trial;

use policy_agent::dataplane::Inbound;

use self::trial::Trial;

/// Policies per test and packets per policy; there are two tests.
const POLICIES: usize = 32;
const PACKETS: usize = 400;

#[test]
fn kernel_and_oracle_agree_when_anybody_may_connect() {
    Trial::new(Inbound::Any, seed()).run(POLICIES, PACKETS);
}

#[test]
fn kernel_and_oracle_agree_when_only_the_host_may_connect() {
    Trial::new(Inbound::Host, seed().wrapping_add(1)).run(POLICIES, PACKETS);
}

fn seed() -> u64 {
    match std::env::var("POLICY_TEST_SEED") {
        Ok(seed) => seed.parse().unwrap_or_else(|_| panic!("POLICY_TEST_SEED={seed} is no number")),
        Err(_) => fastrand::u64(..),
    }
}
