//! Pins that an administrator deletes. The kernel detaches a program when the last reference to its
//! link is dropped: until the agent's next check, nothing is judged.

use std::{fs, path::PathBuf, thread, time::Instant};

use policy_common::ABI_VERSION;
use policy_testbed::{
    network::remove_pins,
    testbed::{ALLOWED_ADDRESSES, OrFail as _, TestSandbox, Testbed},
    wait::eventually,
};

use super::{
    UNENFORCED_WARNING, wait_for_log, wait_for_log_times, wait_for_status, wait_until_enforced,
};

/// How often pins are deleted while the agent creates them.
const REMOVALS: usize = 5;

fn link_pins(stage: &Testbed, sandbox: &TestSandbox) -> PathBuf {
    pin_directory(stage).join("links").join(&sandbox.id)
}

fn pin_directory(stage: &Testbed) -> PathBuf {
    stage.agent().bpffs().path().join(format!("v{ABI_VERSION}"))
}

/// Like `rm`, but when this returns the links are detached, and the agent never finds a
/// half-deleted directory.
fn remove_pins_in(directory: PathBuf) {
    // bpffs reserves names that contain dots.
    let mut gone = directory.clone().into_os_string();
    gone.push("-gone");
    let gone = PathBuf::from(gone);
    fs::rename(&directory, &gone).or_fail("moving pins away");
    remove_pins(&gone);
    fs::remove_dir_all(&gone).or_fail("removing pins by hand");
}

#[test]
fn link_pins_of_a_sandbox_are_restored_and_reported() {
    let (stage, sandbox) = Testbed::with_sandbox();
    for round in 1..=3 {
        let begin = Instant::now();
        remove_pins_in(link_pins(&stage, &sandbox));
        // This comes first: a check that began earlier may hold a link and so keep it attached a
        // little longer.
        wait_for_log_times(&stage, UNENFORCED_WARNING, round);
        wait_until_enforced(&sandbox, "links removed by hand", begin);
    }
}

/// An update that attaches new gates recreates a directory that is deleted meanwhile, as often as
/// that happens.
#[test]
fn link_pins_removed_while_the_agent_attaches() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let directory = link_pins(&stage, &sandbox);
    remove_pins_in(directory.clone());
    for _ in 0..REMOVALS {
        thread::scope(|scope| {
            scope.spawn(|| sandbox.allow_only(&ALLOWED_ADDRESSES));
            eventually("the directory is there", || directory.exists().then_some(()))
                .or_fail("waiting for the change");
            remove_pins_in(directory.clone());
        });
    }
    let attached = || directory.join("from").exists() && directory.join("to").exists();
    eventually("both gates are pinned", || attached().then_some(())).or_fail("looking again");
    wait_until_enforced(&sandbox, "links removed while it attaches", Instant::now());
}

#[test]
fn maps_are_pinned_again() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let tally = sandbox.start_counted_flood();
    remove_pins_in(pin_directory(&stage).join("maps"));
    // New gates need the maps that are in force.
    let other = stage.add_sandbox();
    other.allow_only(&["8.8.8.9"]);
    other.assert_reaches("8.8.8.9");
    other.assert_refused("8.8.8.8");
    wait_for_log(&stage, "pinned again");
    stage.kill_agent();
    stage.restart_agent();
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    tally.assert_no_leak_or_loss("maps' pins removed by hand while it runs");
    assert_status_matches_enforcement(&sandbox);
}

/// The gates of the previous agent tail-call through maps that can no longer be opened.
#[test]
fn maps_removed_while_no_agent_ran_are_replaced_with_their_gates() {
    let (stage, sandbox) = Testbed::with_sandbox();
    for name in ["SANDBOXES", "POLICY_TABLES", "POLICY_TRIE_V4", "TC_PROGRAMS", ""] {
        let tally = sandbox.start_counted_flood();
        stage.kill_agent();
        match name {
            "" => remove_pins_in(pin_directory(&stage).join("maps")),
            name => fs::remove_file(pin_directory(&stage).join("maps").join(name)).or_fail(name),
        }
        stage.restart_agent();
        wait_for_status(&sandbox, "enforcing");
        let what = if name.is_empty() { "all maps" } else { name };
        let fault = format!("pin of {what} removed by hand while no agent ran");
        match name {
            // The kernel clears a program array without user references: everything is denied until
            // the next start.
            "" | "TC_PROGRAMS" => assert_eq!(tally.finish(&fault).1, 0, "leaked"),
            _ => tally.assert_no_leak_or_loss(&fault),
        }
        assert_status_matches_enforcement(&sandbox);
    }
}

#[test]
fn everything_is_pinned_and_attached_again() {
    let (stage, sandbox) = Testbed::with_sandbox();
    let begin = Instant::now();
    remove_pins_in(stage.agent().bpffs().path().to_owned());
    wait_for_log(&stage, UNENFORCED_WARNING);
    wait_until_enforced(&sandbox, "all pins removed by hand", begin);
    stage.kill_agent();
    sandbox.assert_refused("8.8.8.9");
    stage.restart_agent();
    assert_status_matches_enforcement(&sandbox);
}

/// The status in the API matches enforcement.
#[track_caller]
fn assert_status_matches_enforcement(sandbox: &TestSandbox) {
    sandbox.allow_only(&["8.8.8.9"]);
    sandbox.assert_reaches("8.8.8.9");
    sandbox.assert_refused("8.8.8.8");
    sandbox.allow_only(&ALLOWED_ADDRESSES);
    sandbox.assert_reaches("8.8.8.8");
    sandbox.assert_refused("8.8.8.9");
}
