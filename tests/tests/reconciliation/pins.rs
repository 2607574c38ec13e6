//! Pins that somebody removes by hand. The kernel takes a program off when its link's last reference
//! goes: until the agent looks again, nothing is judged.

use std::{fs, path::PathBuf, thread, time::Instant};

use policy_common::ABI_VERSION;
use policy_tests::{
    patience::eventually,
    stage::{Guest, OPENED, OrFail as _, Stage},
    world::unpin,
};

use super::{NOT_JUDGED, becomes, is_said, is_said_times, is_shut_again};

/// How often pins are removed while the agent makes them.
const REMOVALS: usize = 5;

fn links(stage: &Stage, sandbox: &Guest) -> PathBuf {
    pins(stage).join("links").join(&sandbox.id)
}

fn pins(stage: &Stage) -> PathBuf {
    stage.agent().bpffs().directory().join(format!("v{ABI_VERSION}"))
}

/// As with `rm`, but links are off when this returns, and the agent does not see half of it.
fn remove_all_in(directory: PathBuf) {
    // The file system keeps names with dots for itself.
    let mut gone = directory.clone().into_os_string();
    gone.push("-gone");
    let gone = PathBuf::from(gone);
    fs::rename(&directory, &gone).or_fail("moving pins away");
    unpin(&gone);
    fs::remove_dir_all(&gone).or_fail("removing pins by hand");
}

#[test]
fn links_of_a_sandbox_are_attached_again_and_it_is_said() {
    let (stage, sandbox) = Stage::with_sandbox();
    for round in 1..=3 {
        let begin = Instant::now();
        remove_all_in(links(&stage, &sandbox));
        // First this: a look that began before may hold a link, and so keep it attached, a little longer.
        is_said_times(&stage, NOT_JUDGED, round);
        is_shut_again(&sandbox, "links removed by hand", begin);
    }
}

/// A change that attaches new gates makes the directory again that somebody removes meanwhile, as often
/// as that happens.
#[test]
fn links_that_are_removed_while_the_agent_attaches() {
    let (stage, sandbox) = Stage::with_sandbox();
    let directory = links(&stage, &sandbox);
    remove_all_in(directory.clone());
    for _ in 0..REMOVALS {
        thread::scope(|scope| {
            scope.spawn(|| sandbox.may_only_reach(&OPENED));
            eventually("the directory is there", || directory.exists().then_some(()))
                .or_fail("waiting for the change");
            remove_all_in(directory.clone());
        });
    }
    let attached = || directory.join("from").exists() && directory.join("to").exists();
    eventually("both gates are pinned", || attached().then_some(())).or_fail("looking again");
    is_shut_again(&sandbox, "links removed while it attaches", Instant::now());
}

#[test]
fn maps_are_pinned_again() {
    let (stage, sandbox) = Stage::with_sandbox();
    let tally = sandbox.tally();
    remove_all_in(pins(&stage).join("maps"));
    // What needs new gates finds the tables that are in force.
    let other = stage.sandbox();
    other.may_only_reach(&["8.8.8.9"]);
    other.reaches("8.8.8.9");
    other.is_refused("8.8.8.8");
    is_said(&stage, "pinned again");
    stage.kill();
    stage.restart();
    sandbox.may_only_reach(&OPENED);
    tally.is_clean("maps' pins removed by hand while it runs");
    follows(&sandbox);
}

/// The gates of the agent before this one call through tables that nobody can reach any more.
#[test]
fn maps_that_went_while_no_agent_ran_are_replaced_with_their_gates() {
    let (stage, sandbox) = Stage::with_sandbox();
    for name in ["SANDBOXES", "POLICIES_V4", "TC_PROGRAMS", "PUBLISHED", ""] {
        let tally = sandbox.tally();
        stage.kill();
        match name {
            "" => remove_all_in(pins(&stage).join("maps")),
            name => fs::remove_file(pins(&stage).join("maps").join(name)).or_fail(name),
        }
        stage.restart();
        becomes(&sandbox, "enforcing");
        let what = if name.is_empty() { "all maps" } else { name };
        let fault = format!("pin of {what} removed by hand while no agent ran");
        match name {
            // The kernel empties a table of programs that nobody holds: everything is denied until the
            // next start.
            "" | "TC_PROGRAMS" => assert_eq!(tally.end(&fault).1, 0, "leaked"),
            _ => tally.is_clean(&fault),
        }
        follows(&sandbox);
    }
}

#[test]
fn everything_is_pinned_and_attached_again() {
    let (stage, sandbox) = Stage::with_sandbox();
    let begin = Instant::now();
    remove_all_in(stage.agent().bpffs().directory().to_owned());
    is_said(&stage, NOT_JUDGED);
    is_shut_again(&sandbox, "all pins removed by hand", begin);
    stage.kill();
    sandbox.is_refused("8.8.8.9");
    stage.restart();
    follows(&sandbox);
}

/// What the API says is what is enforced.
#[track_caller]
fn follows(sandbox: &Guest) {
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
    sandbox.may_only_reach(&OPENED);
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
}
