//! Other programs at the hooks of a sandbox's interface.

use std::time::Instant;

use policy_tests::{
    patience::eventually,
    probe::Seen,
    server,
    stage::{OPENED, OrFail as _, Stage},
};

use super::{NOT_JUDGED, foreign::PassesEverything, is_said, is_shut_again};

#[test]
fn one_beside_ours_comes_after_it() {
    let (_stage, sandbox) = Stage::with_sandbox();
    let tally = sandbox.tally();
    let _other = PassesEverything::last(&sandbox);
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
    sandbox.may_only_reach(&OPENED);
    tally.is_clean("another program attached behind ours");
}

#[test]
fn one_in_front_of_ours_is_behind_it_after_the_next_look() {
    let (stage, sandbox) = Stage::with_sandbox();
    let begin = Instant::now();
    let _other = PassesEverything::first(&sandbox);
    let open = || (sandbox.tcp("8.8.8.9", server::ECHO) == Seen::Answered).then_some(());
    eventually("it takes the packets away from ours", open).or_fail("attaching it");
    is_shut_again(&sandbox, "another program attached in front of ours", begin);
    is_said(&stage, NOT_JUDGED);
}
