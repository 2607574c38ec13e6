//! What an agent of another ABI left: it stays in force until this one's gates are attached in front.
//!
//! The agent before it is this one, whose pins are moved to where another version would have them. So
//! its gates and their tables are as foreign to the next as those of another version.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use policy_common::ABI_VERSION;
use policy_tests::{
    probe,
    stage::{OPENED, OrFail as _, Stage},
};

fn version(bpffs: &Path, number: u32) -> PathBuf {
    bpffs.join(format!("v{number}"))
}

/// Ends the agent, makes what it left look like another version's, and starts it again.
#[track_caller]
fn upgrade(stage: &Stage) {
    stage.stop();
    let bpffs = stage.agent().bpffs().directory().to_owned();
    let (mine, other) = (version(&bpffs, ABI_VERSION), version(&bpffs, ABI_VERSION - 1));
    fs::rename(&mine, &other).or_fail("making it look like another version's");
    let begin = Instant::now();
    stage.restart();
    eprintln!("took | upgrade to another ABI: start | {:.1?}", begin.elapsed());
}

#[test]
fn its_gates_stay_until_ours_are_in_front() {
    let (stage, sandbox) = Stage::with_sandbox();
    let mut stream = sandbox.connection(OPENED[0]);
    let tally = sandbox.tally();
    for _ in 0..3 {
        upgrade(&stage);
        probe::echo(&mut stream, b"still here").or_fail("an open connection");
        assert_eq!(sandbox.status()["status"], "enforcing");
        let bpffs = stage.agent().bpffs().directory().to_owned();
        assert!(!version(&bpffs, ABI_VERSION - 1).exists(), "the other version's pins are gone");
    }
    tally.is_clean("upgrade to another ABI");
    sandbox.may_only_reach(&["8.8.8.9"]);
    sandbox.reaches("8.8.8.9");
    sandbox.is_refused("8.8.8.8");
}

#[test]
fn a_sandbox_without_its_file_keeps_them() {
    let (stage, sandbox) = Stage::with_sandbox();
    let other = stage.sandbox();
    other.may_only_reach(&["8.8.8.9"]);
    let tally = sandbox.tally();
    let file = stage.agent().state_dir().join(format!("sandboxes/{}.json", sandbox.id));
    fs::write(file, "{").or_fail("breaking a state file");
    upgrade(&stage);
    other.reaches("8.8.8.9");
    other.is_refused("8.8.8.8");
    sandbox.reaches("8.8.8.8");
    sandbox.is_refused("8.8.8.9");
    sandbox.may_only_reach(&OPENED);
    tally.is_clean("upgrade to another ABI with a broken state file");
    let bpffs = stage.agent().bpffs().directory().to_owned();
    assert!(!version(&bpffs, ABI_VERSION - 1).exists(), "the other version's pins are gone");
}
