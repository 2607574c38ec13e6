//! Other programs at the hooks of a sandbox's interface.

use std::time::Instant;

use policy_testbed::testbed::{ALLOWED_ADDRESSES, Testbed};

use super::{
    UNENFORCED_WARNING, pass_all_program::PassAllProgram, wait_for_log, wait_until_enforced,
    wait_until_guarded,
};

#[test]
fn a_program_behind_ours_stays_behind_it() {
    let (_stage, sandbox) = Testbed::with_sandbox();
    let tally = sandbox.start_counted_flood();
    let _other = PassAllProgram::attach_last(&sandbox);
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    tally.assert_no_leak_or_loss("another program attached behind ours");
}

#[test]
fn a_program_in_front_of_ours_is_moved_behind_it() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let begin = Instant::now();
    let _other = PassAllProgram::attach_first(&sandbox);
    wait_until_guarded(&sandbox);
    wait_until_enforced(&sandbox, "another program attached in front of ours", begin);
    wait_for_log(&stage, UNENFORCED_WARNING);
}
